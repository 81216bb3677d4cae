"""`Tokenizer`: encode, decode and chat with one model's tokenizer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from bossa.errors import BossaError, PromptError, TokenizerError, counted, kind_of
from bossa.tokenizer.bounds import LONGEST_RESULT, is_local
from bossa.tokenizer.build import Built, build
from bossa.tokenizer.files import chat_templates, read_tokenizer_files
from bossa.tokenizer.library import call

CLEANUPS = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'")),
    *((" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)
Message = Mapping[str, Any]
NOT_HERE = frozenset(
    "tokenize padding truncation max_length return_tensors return_dict return_assistant_tokens_mask tokenizer_kwargs"
    " sanitize_control_tokens".split()
)
"""Options of transformers' ``apply_chat_template`` that are about token ids."""


class ChatText(str):
    """The text of a conversation: its template has written the special tokens, so none are added when it is encoded."""

    __slots__ = ()


class Tokenizer:
    """A model's tokenizer. Safe to use from several threads.

    Attributes:
        bos_token_id, eos_token_id, pad_token_id: the ids of those tokens, or None where the tokenizer names none.
        special_tokens: the named special tokens by role, as chat templates see them.
        chat_templates: the sources of the chat templates by name.
    """

    def __init__(self, built: Built, chat_templates: Mapping[str, str], where: str) -> None:
        self.where = where
        self.chat_templates = dict(chat_templates)
        self.special_tokens = built.named
        self._backend = built.backend
        self._growth = built.growth
        self._cleans = bool(built.config.get("clean_up_tokenization_spaces", False)) and (
            type(built.backend.model).__name__ != "BPE"
            or bool(built.config.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False))
        )
        self.bos_token_id = self._named("bos_token")
        self.eos_token_id = self._named("eos_token")
        self.pad_token_id = self._named("pad_token")

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Reads the tokenizer of a model's directory, as transformers' ``AutoTokenizer`` reads it.

        Raises:
            TokenizerError: there is none, it cannot be read, or it is one that only transformers can read.
        """
        folder = Path(path)
        if not os.path.isdir(folder):
            raise TokenizerError(f"{folder}: no such directory: pass one that has a tokenizer.json")
        return cls.from_files(read_tokenizer_files(folder), str(folder))

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], where: str = "the PEF") -> Tokenizer:
        """Makes a tokenizer of the files' contents; ``where`` names them in messages.

        Raises:
            TokenizerError: there is neither ``tokenizer.json`` nor ``vocab.json`` and ``merges.txt``, one of the
                files is damaged, or only transformers can read them.
        """
        built = build(files, where)
        return cls(built, chat_templates(files, built.config), where)

    @property
    def chat_template(self) -> str | None:
        """The source of the default chat template, or None."""
        return self.chat_templates.get("default")

    @property
    def vocab_size(self) -> int:
        """Number of tokens, the added ones included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of ``text``, with the special tokens that the model expects around it.

        Raises:
            PromptError: it is not valid Unicode, or the tokenizer does not take it.
        """
        if not isinstance(text, str):
            raise PromptError(f"a text is wanted, and this is {kind_of(text)}: pass a text")
        if self._growth.factor > 1 and self._growth.of(len(text)) > LONGEST_RESULT:
            raise PromptError(
                f"the tokenizer may make {counted(self._growth.of(len(text)))} characters of a text of"
                f" {len(text):,}, and {LONGEST_RESULT:,} is the most: shorten it"
            )
        encoding = call(_not_encoded, self._backend.encode, text, add_special_tokens=add_special_tokens)
        return list(encoding.ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without the special tokens around it; several threads encode.

        Raises:
            PromptError: one is not valid Unicode, or the tokenizer does not take it.
        """
        for text in texts if self._growth.factor > 1 else ():
            if self._growth.of(len(text)) > LONGEST_RESULT:
                raise PromptError(f"the tokenizer may make too much of a text of {len(text):,} letters: shorten it")
        encode = self._backend.encode_batch_fast
        return [each.ids for each in call(_not_encoded, encode, list(texts), add_special_tokens=False)]

    def prompt_ids(self, text: str) -> list[int]:
        """The ids of a prompt: ``encode``, but for one beginning-of-sequence token where the text has its own.

        A conversation's text has its special tokens, and so has one that begins with that token's text.
        """
        if isinstance(text, ChatText):
            return self.encode(text, add_special_tokens=False)
        ids = self.encode(text)
        begins = self.special_tokens.get("bos_token")
        if begins and text.startswith(begins) and ids[:2] == [self.bos_token_id] * 2:
            alone = self.encode(text, add_special_tokens=False)
            if ids[1 : len(alone) + 1] == alone:
                return ids[1:]
        return ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text of ``ids``; special tokens are kept unless asked otherwise, and ids beyond the vocabulary drop."""
        text = self.decode_raw(ids, skip_special_tokens=skip_special_tokens)
        return clean_up(text) if self._cleans else text

    def decode_raw(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """``decode`` without the cleaning up that some tokenizers end with."""
        whole = list(ids)
        if not whole:
            return ""  # some decoders fail at it
        return str(call(_not_decoded, self._backend.decode, whole, skip_special_tokens=skip_special_tokens))

    def token_id(self, token: str) -> int | None:
        """The id of a token by its exact text, or None."""
        return self._backend.token_to_id(token)

    def token(self, token_id: int) -> str | None:
        """The text of a token as it stands in the vocabulary, or None."""
        return self._backend.id_to_token(token_id)

    @property
    def id_limit(self) -> int:
        """All ids are below it; some of those may be of no token."""
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1)

    def to_json(self) -> str:
        """All of it as the text of a ``tokenizer.json``."""
        return str(call(_not_written, self._backend.to_str))

    def token_texts(self) -> tuple[list[str], list[int]]:
        """What each token adds to a text that it stands in, by id; nothing for those that are special, or a part of a
        character. And the ids of the special ones.
        """
        before = self.encode("a", add_special_tokens=False)[-1:]
        start = len(self.decode_raw(before))
        added = self._backend.get_added_tokens_decoder()
        special = [token_id for token_id, token in added.items() if token.special]
        texts = ["" for _ in range(self.id_limit)]
        for token_id in set(range(len(texts))).difference(special):
            text = self.decode_raw([*before, token_id])[start:]
            texts[token_id] = "" if "\ufffd" in text else text
        return texts, special

    @cached_property
    def is_local(self) -> bool:
        """Whether the text of ids can be given out as they come; else it is certain with the last alone."""
        return is_local(self._backend)

    def skipped(self) -> Skipped:
        """Which tokens ``decode`` leaves out when it skips special ones."""
        return Skipped(self, self._backend.get_added_tokens_decoder())

    def chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        continue_final_message: bool | str = False,
        **variables: Any,
    ) -> str:
        """The prompt for a conversation, by the model's chat template, which runs in a sandbox.

        The template writes the special tokens: ``chat_ids`` gives the ids, and a model that is given this text as a
        prompt adds none. Options that are transformers' mean what they mean there.

        Args:
            messages: with ``role`` and ``content`` each; the last is the newest.
            add_generation_prompt: end with what opens the assistant's turn; by default, unless the last message is to
                be continued.
            tools: JSON schemas of what the model may call.
            documents: with ``title`` and ``text`` each, for models that answer from them.
            chat_template: a template to use instead, or the name of one of ``chat_templates``.
            continue_final_message: end inside the last message, so that the model goes on with it; the name of a
                field continues that one instead of its content.
            variables: more names that the template may read.

        Raises:
            TokenizerError: there is no chat template, or an option is not known here.
            PromptError: the template does not take these messages.
        """
        wrong = sorted(NOT_HERE & set(variables))
        if wrong:
            raise TokenizerError(f"chat makes a text and has no option {wrong[0]}: leave it out, or see chat_ids")
        if continue_final_message and add_generation_prompt:
            raise TokenizerError(
                "a chat either continues its final message or opens an answer: leave out add_generation_prompt or"
                " continue_final_message"
            )
        from bossa.tokenizer.chat import render

        opens = not continue_final_message if add_generation_prompt is None else add_generation_prompt
        return ChatText(
            render(
                self._template(chat_template, tools),
                messages,
                {
                    **self.special_tokens,
                    **variables,
                    "tools": tools,
                    "documents": documents,
                    "add_generation_prompt": opens,
                },
                continued="content" if continue_final_message is True else continue_final_message or None,
            )
        )

    def chat_ids(self, messages: Sequence[Message], **options: Any) -> list[int]:
        """The ids of a conversation; the options and errors are those of ``chat``."""
        return self.encode(self.chat(messages, **options), add_special_tokens=False)

    @property
    def cleans_up(self) -> bool:
        """Whether decoding ends by taking out spaces before punctuation, which looks at several tokens at once."""
        return self._cleans

    def _template(self, chosen: str | None, tools: object) -> str:
        named = self.chat_templates
        if chosen is not None:
            return named.get(chosen, chosen)
        template = named.get("tool_use") if tools is not None and "tool_use" in named else named.get("default")
        if template is None:
            if named:
                raise TokenizerError(
                    f"{self.where}: its tokenizer has no default chat template: name one of"
                    f" {', '.join(sorted(named))} with chat_template"
                )
            raise TokenizerError(f"{self.where}: its tokenizer has no chat template: pass a prompt instead of a chat")
        return template

    def _named(self, role: str) -> int | None:
        for key in (role, "unk_token"):
            if role in self.special_tokens and key in self.special_tokens:
                number = self._backend.token_to_id(self.special_tokens[key])
                if number is not None:
                    return number
        return None


class Skipped:
    """The tokens that ``decode`` leaves out when it skips special ones: the library has no list of them.

    It goes by a token's text as the normalizer leaves it, and by all that was ever added as special. So not every token
    that is flagged is left out, and not every one that is left out is flagged.
    """

    def __init__(self, tokenizer: Tokenizer, added: Mapping[int, Any]) -> None:
        self._tokenizer = tokenizer
        self._texts = {token.content for token in added.values() if token.special}
        self._added = frozenset(added)
        self._known: dict[int, bool] = {}

    def has(self, token_id: int, token: str) -> bool:
        """Whether it is one of them."""
        if token in self._texts or token_id not in self._added:
            return token in self._texts
        if token_id not in self._known:
            alone = [self._tokenizer.decode_raw([token_id], skip_special_tokens=skip) for skip in (False, True)]
            self._known[token_id] = alone[0] != alone[1]
        return self._known[token_id]


def _not_encoded(reason: str) -> BossaError:
    if "TextInputSequence" in reason or "surrogates not allowed" in reason:
        return PromptError("the text is not valid Unicode (it has half a surrogate pair): correct it")
    return PromptError(f"the tokenizer does not take this text ({reason}): shorten it, or use another tokenizer")


def _not_written(reason: str) -> BossaError:
    return TokenizerError(f"the tokenizer cannot be written as JSON ({reason}): use another tokenizer")


def _not_decoded(reason: str) -> BossaError:
    return TokenizerError(f"the tokenizer has no text for these tokens ({reason}): use another tokenizer")


def clean_up(text: str) -> str:
    """Takes out the spaces that word-piece decoding puts before English punctuation."""
    for spaced, joined in CLEANUPS:
        text = text.replace(spaced, joined)
    return text
