"""The logits of the rows so far, and results that have them without a copy.

A program owns the results that it gets: it may keep them, and write to them. So the rows lie in a file without a name,
and a result maps the part of it that its sequences have reached, privately: what the program writes goes to pages of
its own. Behind that part a result is zeroed memory that nobody has touched. Rows are only ever added behind those that
a result has; where one would have to change, all of it moves to a new file, and earlier results keep the old one.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bossa.samba.copy_on_write import Pages, nameless


class KeptLogits:
    """Logits of the rows of a batch of sequences, and results made of them.

    Attributes:
        rows: float32 ``[b, L, V]``, zeros where nothing was written.
    """

    def __init__(self, sequences: int, length: int, vocab_size: int) -> None:
        self._shape = (sequences, length, vocab_size)
        self._shown = [0] * sequences
        self._make()

    def _make(self) -> None:
        self._bytes = 4 * int(np.prod(self._shape))
        self._file = nameless()
        os.ftruncate(self._file.fileno(), self._bytes)
        self.rows: NDArray[np.float32] = np.frombuffer(mmap.mmap(self._file.fileno(), self._bytes), np.float32).reshape(
            self._shape
        )

    def keep(self, counts: Sequence[int]) -> None:
        """Keeps so many rows of each sequence; the others may be written from now on."""
        if all(shown <= count for shown, count in zip(self._shown, counts, strict=True)):
            return
        before = self.rows
        self._make()
        for number, count in enumerate(counts):
            self.rows[number, :count] = before[number, :count]
        self._shown = [0] * len(counts)

    def result(self, counts: Sequence[int]) -> torch.Tensor:
        """The first rows of each sequence, zeros behind them. ``[b, L, V]``"""
        self._shown = [max(shown, count) for shown, count in zip(self._shown, counts, strict=True)]
        memory = Pages(self._bytes)
        source = self.rows.reshape(-1).view(np.uint8)
        target = np.asarray(memory)
        row = 4 * self._shape[2]
        for number, count in enumerate(counts):
            start = number * self._shape[1] * row
            stop = start + count * row
            first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
            if first < last:
                memory.show(self._file.fileno(), first, last)
                target[start:first] = source[start:first]
                target[last:stop] = source[last:stop]
            else:
                target[start:stop] = source[start:stop]
        return torch.from_numpy(target.view(np.float32).reshape(self._shape))
