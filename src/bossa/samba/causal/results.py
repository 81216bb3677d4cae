"""The logits of the rows so far, and results that have them without a copy.

A program owns the results that it gets: it may keep them, and write to them. So the rows lie in a file without a name,
and a result maps the part of it that its sequences have reached, privately: what the program writes goes to pages of
its own. Behind that part a result is zeroed memory that nobody has touched. Rows are only ever added behind those that
a result has; where one would have to change, all of it moves to a new file, and earlier results keep the old one.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bossa.errors import RuntimeFailure

_FIXED = 0x10
"""MAP_FIXED, the same on Linux and macOS; Python's mmap does not name it."""
_FAILED = ctypes.c_void_p(-1).value

_system = ctypes.CDLL(None, use_errno=True)
_system.mmap.restype = ctypes.c_void_p
_system.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
]  # fmt: skip
_system.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


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
        self._file = _nameless()
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
        memory = _Mapping(self._bytes, self._shape)
        source = self.rows.reshape(-1).view(np.uint8)
        target = np.asarray(memory).reshape(-1).view(np.uint8)
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
        return torch.from_numpy(np.asarray(memory))


class _Mapping:
    """Memory of the process alone, zeroed where it shows no file; arrays of it keep it alive."""

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        self._size = size
        self._address = 0
        self._address = _map(None, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        self.__array_interface__: dict[str, Any] = {
            "shape": shape,
            "typestr": np.dtype(np.float32).str,
            "data": (self._address, False),
            "version": 3,
        }

    def show(self, file: int, first: int, last: int) -> None:
        """Has the bytes of a file from `first` to `last`, at their place; both are multiples of a page."""
        _map(self._address + first, last - first, mmap.MAP_PRIVATE | _FIXED, file, first)

    def __del__(self) -> None:
        if self._address:
            _system.munmap(self._address, self._size)


def _map(address: int | None, size: int, flags: int, file: int, offset: int) -> int:
    found = _system.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, file, offset)
    if found == _FAILED or found is None:
        reason = os.strerror(ctypes.get_errno())
        raise RuntimeFailure(f"{size:,} bytes for a result cannot be had ({reason}): let go of earlier results")
    return int(found)


def _nameless() -> Any:
    """A file that is gone when nobody maps it any more, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("bossa-logits"), "wb")
    return tempfile.TemporaryFile()
