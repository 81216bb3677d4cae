"""Articles into sequences of one length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bossa.prepare.settings import COMPLETION, PADDING, Settings

ROWS = 1024
"""Sequences that are handed on together, at most."""
TOKENS = 1 << 22
"""Tokens of them, about: a bound on memory where sequences are long."""


class Sequences(NamedTuple):
    """Packed sequences.

    Attributes:
        tokens: int32 ``[n, L]``.
        types: uint8 ``[n, L]``.
        categories: int32 ``[n, L]``, -1 where there is padding.
    """

    tokens: NDArray[np.int32]
    types: NDArray[np.uint8]
    categories: NDArray[np.int32]


class Part(NamedTuple):
    """An article's tokens, types and category, and the number by which it is counted."""

    number: int
    tokens: NDArray[np.int32]
    types: NDArray[np.uint8]
    category: int


class Packer:
    """Lays articles into sequences, as `Settings.input_packing_config` says.

    Attributes:
        dropped, cut: the numbers of articles that were too long.
        prompts_alone: sequences that were left out, since they had no token of a completion.
        written: sequences that were made.
        tokens: of articles in them, and `labels`: those among them that a completion consists of.
    """

    def __init__(self, settings: Settings, padding: int) -> None:
        self.settings = settings
        self.padding = padding
        self.dropped: list[int] = []
        self.cut: list[int] = []
        self.prompts_alone = self.written = self.tokens = self.labels = 0
        length = settings.max_seq_length
        shape = max(1, min(ROWS, TOKENS // length)), length
        self._made = Sequences(np.empty(shape, np.int32), np.empty(shape, np.uint8), np.empty(shape, np.int32))
        self._row = self._column = 0
        self._clear()

    def pack(self, parts: Iterable[Part]) -> Iterator[Sequences]:
        """The sequences, some at a time; what is given is good until the next."""
        method, _, overflow = self.settings.input_packing_config.partition("::")
        length = self.settings.max_seq_length
        for part in parts:
            size = len(part.tokens)
            if method == "full":
                start = 0
                while start < size:
                    stop = min(size, start + length - self._column)
                    self._put(part, start, stop)
                    start = stop
                    if self._column == length:
                        yield from self._end_row()
                continue
            start, stop = 0, size
            if size > length:
                if overflow == "drop":
                    self.dropped.append(part.number)
                    continue
                self.cut.append(part.number)
                start, stop = (size - length, size) if overflow == "truncate_left" else (0, length)
            if self._column and (method == "single" or self._column + stop - start > length):
                yield from self._end_row()
            self._put(part, start, stop)
        if self._column:
            yield from self._end_row()
        if self._row:
            yield self._taken()

    def _put(self, part: Part, start: int, stop: int) -> None:
        place = self._row, slice(self._column, self._column + stop - start)
        self._made.tokens[place] = part.tokens[start:stop]
        self._made.types[place] = part.types[start:stop]
        self._made.categories[place] = part.category
        self._column += stop - start

    def _end_row(self) -> Iterator[Sequences]:
        used, self._column = self._column, 0
        labels = int((self._made.types[self._row, :used] == COMPLETION).sum())
        if not labels and not self.settings.keep_prompt_only_sequences:
            self.prompts_alone += 1
            self._clear_row(self._row)
            return
        self.tokens += used
        self.labels += labels
        self.written += 1
        self._row += 1
        if self._row == len(self._made.tokens):
            yield self._taken()
            self._row = 0
            self._clear()

    def _taken(self) -> Sequences:
        made = self._made
        return Sequences(made.tokens[: self._row], made.types[: self._row], made.categories[: self._row])

    def _clear(self) -> None:
        self._clear_row(slice(None))

    def _clear_row(self, rows: int | slice) -> None:
        self._made.tokens[rows] = self.padding
        self._made.types[rows] = PADDING
        self._made.categories[rows] = -1
