"""Ids to text as they come: what is certain is given out, what the next token may change is kept back."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bossa.tokenizer.tokenizer import Tokenizer, clean_up

REPLACEMENT = "\ufffd"
"""What decoding puts for bytes that are no character, or not one yet."""
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>\Z")
SETTLED = re.compile(r"\w{3}(?= )")


class Detokenizer:
    """Text from ids that arrive one at a time; never half a character.

    What ``add`` and ``finish`` return, joined, is ``decode`` of all ids; with a prompt, what follows the prompt's text.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = (), *, skip_special_tokens: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._skipped = tokenizer.skipped() if skip_special_tokens else None
        self._ids = list(prompt)
        self._pending = ""  # certain but for cleaning up
        self._prefix = 0  # the window that is decoded at each step starts here;
        self._next = len(self._ids)  # and here once these ids have a text of their own
        self._known = tokenizer.decode_raw(prompt, skip_special_tokens=skip_special_tokens).rstrip(REPLACEMENT)
        self._emitted = clean_up(self._known) if tokenizer.cleans_up else self._known

    def add(self, token_id: int) -> str:
        """The text that is certain now and was not before: often the token's own, sometimes none."""
        token = self._tokenizer.token(token_id)
        if token is None or (self._skipped is not None and self._skipped.has(token_id, token)):
            return ""
        self._ids.append(token_id)
        if not self._tokenizer.is_local or BYTE_TOKEN.match(token):
            return ""  # a run of bytes is decoded as one, so its text is not certain before it ends
        known, text = self._known, self._decode(self._prefix)
        if text.endswith(REPLACEMENT) or not text.startswith(known):
            return ""
        # Decoders strip the start of a text. Where something is left of the window's, they have nothing more to strip
        # and what follows is not taken for a start.
        later = self._decode(self._next)
        if later:
            self._prefix, self._next, self._known = self._next, len(self._ids), later
        else:
            self._known = text
        return self._emit(text[len(known) :])

    def finish(self) -> str:
        """What is left when no more ids come."""
        whole = self._tokenizer.decode(self._ids, skip_special_tokens=self._skip)
        rest = whole[len(self._emitted) :]
        self._emitted += rest
        return rest

    def _decode(self, start: int) -> str:
        return self._tokenizer.decode_raw(self._ids[start:], skip_special_tokens=self._skip)

    def _emit(self, text: str) -> str:
        if self._tokenizer.cleans_up:
            # Every clean-up starts at a space and is four letters long at most, so none crosses a space that follows
            # three letters: the text before it is final.
            self._pending += text
            cut = max((found.end() for found in SETTLED.finditer(self._pending)), default=0)
            text, self._pending = clean_up(self._pending[:cut]), self._pending[cut:]
        self._emitted += text
        return text
