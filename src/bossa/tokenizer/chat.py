"""Chat templates: what they are given, which is JSON's values alone, and what becomes of their text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from bossa.errors import PromptError, TokenizerError, kind_of, shown
from bossa.tokenizer.library import LONGEST_REASON

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names that a message's reasoning goes by; templates read the first or the second."""
TAG = "CONTINUE_FINAL_MESSAGE_TAG "
"""Stands at the end of a message that is continued while its template runs. Its space tells whether that was kept."""


def render(
    template: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], continued: str | None = None
) -> str:
    """The text that ``template`` makes of a conversation.

    Args:
        template: its source.
        messages: the conversation.
        variables: what else the template may read, ``tools`` and ``documents`` among it.
        continued: the field of the last message in which the text ends, so that it can be gone on with.

    Raises:
        PromptError: the messages are none, the template refuses them, or it is not valid, tries what the sandbox
            forbids, or does more than a template may.
        TokenizerError: tools or documents are not what templates take.
    """
    chat = _messages(messages)
    values = _plain({**variables, "tools": _tools(variables.get("tools")), "documents": _documents(variables)})
    final = "" if continued is None else _tag(template, chat, continued)
    from bossa.tokenizer.sandbox import run

    try:
        text = run(template, {"messages": chat, **values})
    except Exception as error:  # a template can fail as any program can
        told = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise PromptError(
            f"the chat template does not take these messages ({shown(told)[:LONGEST_REASON]}): correct them"
        ) from None
    return text if continued is None else _continued(text, final)


def _messages(messages: Any) -> list[dict[str, Any]]:
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise PromptError("the chat's messages should be a list of objects with role and content: correct them")
    if not messages:
        raise PromptError("the chat has no messages: pass one at least")
    chat = [_plain(message) for message in messages]
    if not all(isinstance(message, dict) for message in chat):
        raise PromptError("the chat's messages should be objects with role and content: correct them")
    return [_with_reasoning({key: value for key, value in item.items() if value is not None}) for item in chat]


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    reasoning = next((message[key] for key in REASONING if key in message), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _tools(tools: Any) -> list[Any] | None:
    if tools is None:
        return None
    if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence):
        raise TokenizerError("tools should be a list of JSON schemas: pass one for each")
    for number, tool in enumerate(tools):
        if callable(tool):
            raise TokenizerError(
                f"tools[{number}] is a function: pass its JSON schema"
                ' ({"type": "function", "function": {"name": …, "description": …, "parameters": …}})'
            )
        if not isinstance(tool, Mapping):
            raise TokenizerError(f"tools[{number}] is {kind_of(tool)}: pass a JSON schema")
    return list(tools)


def _documents(variables: Mapping[str, Any]) -> list[Any] | None:
    documents = variables.get("documents")
    if documents is None:
        return None
    if isinstance(documents, str | Mapping) or not isinstance(documents, Sequence):
        raise TokenizerError("documents should be a list of objects with title and text: correct them")
    if not all(isinstance(document, Mapping) for document in documents):
        raise TokenizerError("documents should be objects with title and text: correct them")
    return list(documents)


def _tag(template: str, chat: list[dict[str, Any]], field: str) -> str:
    """Mark where the last message ends, and give the text that stands there."""
    final = chat[-1].get(field)
    if final is None:
        raise PromptError(f"the final message has no {shown(field)} to continue: give it one")
    copies = [field]
    if field in REASONING:
        copies = [name for name in REASONING if chat[-1].get(name) == final]
    if not any(name in template for name in copies):
        raise PromptError(
            f"the chat template does not read {shown(field)}, so it cannot be continued: name another field"
        )
    if isinstance(final, str):
        for name in copies:
            chat[-1][name] = final + TAG
        return final
    for block in reversed(final if isinstance(final, list | tuple) else ()):
        if isinstance(block, dict) and isinstance(block.get("text"), str):
            text: str = block["text"]
            block["text"] = text + TAG
            return text
    raise PromptError("the final message has no text to continue: give it one")


def _continued(text: str, final: str) -> str:
    """The text up to the mark, without the space that the template trimmed from the message."""
    if final.strip() not in text or TAG.strip() not in text:
        raise PromptError(
            "the chat template leaves out part of the final message, so it cannot be continued: open an answer instead"
        )
    end = text.rindex(TAG.strip())
    return text[:end] if text[end : end + len(TAG)] == TAG else text[:end].rstrip()


def _plain(value: Any) -> Any:
    """The value rebuilt from JSON's types, so that a template is given no object with methods of its own."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return f"<{type(value).__name__}>"
