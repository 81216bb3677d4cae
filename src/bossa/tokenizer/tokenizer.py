"""`Tokenizer`: encode, decode and chat with one model's tokenizer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bossa.errors import TokenizerError
from bossa.tokenizer.files import NAMED, build, chat_template, content, read_config, read_tokenizer_files

if TYPE_CHECKING:
    import tokenizers

CLEANUPS = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'")),
    *((" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)


class Tokenizer:
    """A model's tokenizer. Safe to use from several threads.

    Attributes:
        bos_token_id, eos_token_id, pad_token_id: the ids of those tokens, or None where the tokenizer names none.
        special_tokens: the named special tokens by role, as chat templates see them.
        chat_template: the source of the chat template, or None.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, config: Mapping[str, Any], chat_template: str | None, where: str
    ) -> None:
        self.where = where
        self.chat_template = chat_template
        self.special_tokens = {key: text for key in NAMED if (text := content(config.get(key)))}
        self._backend = backend
        self._cleans = bool(config.get("clean_up_tokenization_spaces", False)) and (
            type(backend.model).__name__ != "BPE"
            or bool(config.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False))
        )
        self.bos_token_id = self._named("bos_token")
        self.eos_token_id = self._named("eos_token")
        self.pad_token_id = self._named("pad_token")

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Reads the tokenizer of a model's directory.

        Raises:
            TokenizerError: there is none, or it cannot be read.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise TokenizerError(f"{folder}: no such directory: pass one that has a tokenizer.json")
        return cls.from_files(read_tokenizer_files(folder), str(folder))

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], where: str = "the PEF") -> Tokenizer:
        """Makes a tokenizer of the files' contents; ``where`` names them in messages.

        Raises:
            TokenizerError: there is neither ``tokenizer.json`` nor ``vocab.json`` and ``merges.txt``, or one of the
                files is damaged.
        """
        config = read_config(files, where)
        backend = build(files, config, where)
        return cls(backend, config, chat_template(files, config), where)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, the added ones included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of ``text``, with the special tokens that the model expects around it."""
        try:
            return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)
        except (UnicodeEncodeError, TypeError):
            raise TokenizerError("the text is not valid Unicode (it has half a surrogate pair): correct it") from None

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text of ``ids``; special tokens are kept unless asked otherwise, and ids beyond the vocabulary drop."""
        text = self.decode_raw(ids, skip_special_tokens=skip_special_tokens)
        return clean_up(text) if self._cleans else text

    def decode_raw(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """``decode`` without the cleaning up that some tokenizers end with."""
        return str(self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def token_id(self, token: str) -> int | None:
        """The id of a token by its exact text, or None."""
        return self._backend.token_to_id(token)

    def token(self, token_id: int) -> str | None:
        """The text of a token as it stands in the vocabulary, or None."""
        return self._backend.id_to_token(token_id)

    def special_ids(self) -> frozenset[int]:
        """The ids that ``decode`` leaves out when it skips special tokens."""
        added = self._backend.get_added_tokens_decoder()
        return frozenset(number for number, token in added.items() if token.special)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt for a conversation, by the model's chat template, which runs in a sandbox.

        Encode the result with ``add_special_tokens=False``: the template writes the special tokens.

        Args:
            messages: with ``role`` and ``content`` each; the last is the newest.
            add_generation_prompt: end with what opens the assistant's turn.
            variables: more names that the template may read.

        Raises:
            TokenizerError: there is no chat template, or it fails on these messages.
        """
        if self.chat_template is None:
            raise TokenizerError(f"{self.where}: its tokenizer has no chat template: pass a prompt instead of a chat")
        from bossa.tokenizer.chat import render

        return render(self.chat_template, messages, add_generation_prompt, {**self.special_tokens, **variables})

    @property
    def cleans_up(self) -> bool:
        """Whether decoding ends by taking out spaces before punctuation, which looks at several tokens at once."""
        return self._cleans

    def _named(self, key: str) -> int | None:
        return self._backend.token_to_id(self.special_tokens[key]) if key in self.special_tokens else None


def clean_up(text: str) -> str:
    """Takes out the spaces that word-piece decoding puts before English punctuation."""
    for spaced, joined in CLEANUPS:
        text = text.replace(spaced, joined)
    return text
