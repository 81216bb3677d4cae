"""Packing: from a checkpoint's tensors to the bytes that the kernels read, a few panels at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.errors import WeightsError
from bossa.weights.slot import PANEL, Slot, Source
from bossa.weights.source import widen

CHUNK = 1 << 18
"""Numbers that are converted at a time: small enough for the cache, large enough for NumPy."""

INFINITY = np.uint16(0x7F80)
SIGNLESS = np.uint16(0x7FFF)


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bfloat16 of each number, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    result = rounded.astype(np.uint16)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    if nan.any():
        result[nan] = 0x7FC0
    return result


class Tensor:
    """One source tensor as it is stored, read by rows of the matrix that its slot sees."""

    def __init__(self, source: Source, array: NDArray[Any], dtype: str, name: str, where: str) -> None:
        self.array = np.atleast_1d(array.T if source.transpose else array)
        self.dtype = dtype
        self.name = name
        self.where = where

    def rows(self, start: int, stop: int, stored: str) -> NDArray[Any]:
        """Rows of the matrix (elements of a vector): float32, or the bits of bfloat16.

        Raises:
            WeightsError: a number is NaN or infinite, or too large for bfloat16.
        """
        part = self.array[start:stop]
        if stored == "bf16" and self.dtype == "BF16":
            if part.size and int(_largest(part)) >= INFINITY:
                self._refuse()
            return part
        wide = widen(part, self.dtype, self.name, self.where)
        with np.errstate(over="ignore", invalid="ignore"):
            total = wide.sum(dtype=np.float32)
        if not np.isfinite(total) and not np.isfinite(wide).all():
            self._refuse()
        if stored == "fp32":
            return wide
        bits = to_bf16(wide)
        if bits.size and int(_largest(bits)) >= INFINITY:
            raise WeightsError(
                f"{self.where}: tensor {self.name!r} has a number that is too large for bf16: compile with fp32"
            )
        return bits

    def _refuse(self) -> None:
        raise WeightsError(f"{self.where}: tensor {self.name!r} has NaN or infinite numbers: pass sound weights")


def _largest(bits: NDArray[np.uint16]) -> np.uint16:
    return np.max(bits & SIGNLESS)  # type: ignore[no-any-return]


def pack(slot: Slot, tensors: list[Tensor], out: NDArray[np.uint8]) -> Iterator[Callable[[], None]]:
    """Yields the pieces of work that pack a slot into ``out``, its ``nbytes`` bytes, which must be zero.

    The pieces write to different bytes, so that they may run in any order and on several threads.

    Raises:
        WeightsError: (by a piece) a tensor has a number that cannot be packed.
    """
    target = out.view(np.float32 if slot.dtype == "fp32" else np.uint16)
    if slot.layout == "panels":
        n, k = slot.shape
        panels = target.reshape(-(-n // PANEL), k, PANEL)

        def panel_piece(tensor: Tensor, start: int, stop: int, row: int) -> None:
            _pack_panels(tensor.rows(start, stop, slot.dtype), panels, row)

        return (partial(panel_piece, *block) for block in _blocks(slot, tensors))

    width = prod(slot.shape[1:])
    table = target.reshape(-1, width) if width else target.reshape(0, 1)

    def table_piece(tensor: Tensor, start: int, stop: int, row: int) -> None:
        table[row : row + stop - start] = tensor.rows(start, stop, slot.dtype).reshape(stop - start, width)

    return (partial(table_piece, *block) for block in _blocks(slot, tensors) if width)


def _pack_panels(rows: NDArray[Any], panels: NDArray[Any], row: int) -> None:
    """Puts rows ``[R, K]`` into panels ``[P, K, 16]`` from packed row ``row`` on."""
    lane = row % PANEL
    count, k = rows.shape
    done = min(-lane % PANEL, count)
    if done:
        panels[row // PANEL, :, lane : lane + done] = rows[:done].T
    whole = (count - done) // PANEL
    if whole:
        first = (row + done) // PANEL
        panels[first : first + whole] = rows[done : done + whole * PANEL].reshape(whole, PANEL, k).transpose(0, 2, 1)
        done += whole * PANEL
    if done < count:
        panels[(row + done) // PANEL, :, : count - done] = rows[done:].T


def _blocks(slot: Slot, tensors: list[Tensor]) -> Iterator[tuple[Tensor, int, int, int]]:
    """The pieces in which a slot is packed: a tensor, its rows ``start`` to ``stop``, and the packed row they go to."""
    if slot.interleave:
        for start in range(0, tensors[0].array.shape[0], PANEL):
            for number, tensor in enumerate(tensors):
                yield tensor, start, start + PANEL, start * len(tensors) + number * PANEL
        return
    row = 0
    for tensor in tensors:
        height = tensor.array.shape[0]
        width = max(1, tensor.array.size // max(1, height))
        step = max(PANEL, CHUNK // width // PANEL * PANEL)
        for start in range(0, height, step):
            stop = min(start + step, height)
            yield tensor, start, stop, row + start
        row += height
