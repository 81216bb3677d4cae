"""A prompt in each of its forms, text, token ids or a conversation, as token ids."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from bossa.engine.truncation import Truncation, fit_text, room_for
from bossa.errors import RequestError, TokenizerError

Message = Mapping[str, Any]


def is_conversation(prompt: object) -> TypeGuard[Sequence[Message]]:
    """Whether it is a list of messages."""
    return isinstance(prompt, list | tuple) and bool(prompt) and all(isinstance(part, Mapping) for part in prompt)


def text_ids(tokenizer: Any, text: str, add_special_tokens: bool = True) -> list[int]:
    """The ids of a prompt's text; a tokenizer that knows of conversations doubles none of their special tokens."""
    prompt_ids = getattr(tokenizer, "prompt_ids", None)
    if add_special_tokens and prompt_ids is not None:
        return list(prompt_ids(text))
    return list(tokenizer.encode(text, add_special_tokens=add_special_tokens))


def conversation_ids(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Message] | None = None) -> list[int]:
    """The ids of a conversation in the model's chat template, which writes the special tokens.

    Raises:
        TokenizerError: there is no tokenizer that can chat, or it does not take the messages or tools.
    """
    chat = getattr(tokenizer, "chat", None)
    if chat is None:
        raise TokenizerError("the prompt is a conversation, and there is no tokenizer with a chat template: load one")
    if tools and not _takes_tools(chat):
        raise TokenizerError('the chat template of this tokenizer takes no tools: leave out the "tools"')
    text = chat(messages, tools=tools) if tools else chat(messages)
    return list(tokenizer.encode(text, add_special_tokens=False))


def _takes_tools(chat: Any) -> bool:
    try:
        parameters = inspect.signature(chat).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(each.name == "tools" or each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)


def fit_conversation(
    tokenizer: Any,
    messages: Sequence[Message],
    max_seq_length: int,
    max_new_tokens: int,
    truncation: Truncation | None,
    tools: Sequence[Message] | None = None,
) -> list[int]:
    """The ids of a conversation that leaves room for new tokens: what is cut is the newest text of the user.

    The template's frame and what else was said stay whole.

    Raises:
        RequestError: they alone are too long.
        TokenizerError: as ``conversation_ids``.
    """
    ids = conversation_ids(tokenizer, messages, tools)
    room = room_for(max_seq_length, max_new_tokens)
    if truncation is None or len(ids) <= room:
        return ids
    at = max((at for at, message in enumerate(messages) if _is_cut(message)), default=None)
    if at is None:
        raise RequestError(
            f"the conversation has {len(ids)} tokens, {room} fit, and there is no user text to cut: shorten it"
        )

    def with_text(text: str) -> list[int]:
        cut = {**messages[at], "content": text}
        return conversation_ids(tokenizer, [*messages[:at], cut, *messages[at + 1 :]], tools)

    fitted = fit_text(str(messages[at]["content"]), with_text, room, truncation)
    if fitted is None:
        raise RequestError(
            f"the conversation has {len(with_text(''))} tokens without the user's newest text, and {room} fit: shorten"
            " it, ask for fewer new tokens, or compile with a greater max_seq_length"
        )
    return fitted


def _is_cut(message: Message) -> bool:
    return message.get("role") == "user" and isinstance(message.get("content"), str)
