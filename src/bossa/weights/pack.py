"""Packing: from a checkpoint's tensors to the bytes that the kernels read, a few panels at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bossa.errors import WeightsError
from bossa.formats.format import Format
from bossa.formats.geometry import PANEL
from bossa.formats.registry import FORMATS
from bossa.ir.slot import Slot, Source
from bossa.weights.packer import STORED, Packer, Result
from bossa.weights.source import widen

U8 = NDArray[np.uint8]

CHUNK = 1 << 18
"""Numbers that are converted at a time: small enough for the cache, large enough for NumPy."""
NATIVE_CHUNKS = 4
"""Chunks that native code converts at a time: it needs no more memory for more, and calls cost something."""


class Tensor:
    """One source tensor as it is stored, read by rows of the matrix that its slot sees."""

    def __init__(self, source: Source, array: NDArray[Any], dtype: str, name: str, where: str) -> None:
        self.array = np.atleast_1d(array.T if source.transpose else array)
        self.dtype = dtype
        self.name = name
        self.where = where

    def rows(self, start: int, stop: int, stored: Format) -> NDArray[np.float32]:
        """Rows of the matrix (elements of a vector).

        Raises:
            WeightsError: a number is NaN or infinite, or too large for the format that it is to be stored in.
        """
        wide = widen(self.array[start:stop], self.dtype, self.name, self.where)
        with np.errstate(over="ignore", invalid="ignore"):
            total = wide.sum(dtype=np.float32)
        if not np.isfinite(total) and not np.isfinite(wide).all():
            self.refuse()
        if stored.quantized and wide.size and max(wide.max(), -wide.min()) > stored.largest:
            self.refuse_size(stored)
        return wide

    def refuse(self) -> NoReturn:
        raise WeightsError(f"{self.where}: tensor {self.name!r} has NaN or infinite numbers: pass undamaged weights")

    def refuse_size(self, stored: Format) -> NoReturn:
        raise WeightsError(
            f"{self.where}: tensor {self.name!r} has a number that is too large for {stored.name}: compile with fp32"
        )

    def pack_natively(
        self, pack: Callable[..., Result], start: int, stop: int, stored: Format, place: tuple[int, int], out: U8
    ) -> bool:
        """Packs rows by native code, unless that does not know the format.

        Args:
            pack: one of the two methods of a packer.
            start, stop: the rows.
            stored: the format.
            place: what ``pack`` takes of where they go.
            out: the slot.

        Raises:
            WeightsError: as ``rows`` does, or there is no memory.
        """
        if self.native:
            rows, dtype = self.array[start:stop], self.dtype
        else:
            rows, dtype = np.ascontiguousarray(_matrix(self.rows(start, stop, stored))), "F32"
        result = pack(rows, dtype, stored.name, *place, out)
        if result == "not finite":
            self.refuse()
        if result == "too large":
            self.refuse_size(stored)
        if result == "no memory":
            raise WeightsError(f"{self.where}: tensor {self.name!r} cannot be packed: there is no memory left")
        return result == "packed"

    @property
    def native(self) -> bool:
        """Whether a packer reads it where it lies."""
        array = self.array
        return (
            array.ndim == 2
            and self.dtype in STORED
            and array.flags.aligned
            and all(stride % array.itemsize == 0 for stride in array.strides)
        )


def pack(slot: Slot, tensors: list[Tensor], out: U8, packer: Packer | None = None) -> Iterator[Callable[[], None]]:
    """Yields the pieces of work that pack a slot into ``out``, its ``nbytes`` bytes, which must be zero.

    The pieces write to different bytes, so that they may run in any order and on several threads. A packer does the
    work for matrices and tables where it knows their format; the bytes are the same.

    Raises:
        WeightsError: (by a piece) a tensor has a number that cannot be packed.
    """
    if not slot.nbytes:
        return
    stored = FORMATS[slot.dtype]

    height = slot.shape[0] if slot.shape else 1

    def panels(tensor: Tensor, start: int, stop: int, row: int, panel_step: int) -> None:
        place = row, panel_step
        if packer is None or not tensor.pack_natively(packer.pack, start, stop, stored, place, out):
            stored.put(tensor.rows(start, stop, stored), out, *place)

    def table(tensor: Tensor, start: int, stop: int, row: int, _: int) -> None:
        place = row, height
        if packer is None or not tensor.pack_natively(packer.pack_table, start, stop, stored, place, out):
            stored.put_table(_matrix(tensor.rows(start, stop, stored)), out, height, row)

    def flat(tensor: Tensor, start: int, stop: int, row: int, _: int) -> None:
        stored.put_table(_matrix(tensor.rows(start, stop, stored)), out, height, row)

    piece = {"panels": panels, "rows": table, "flat": flat}[slot.layout]
    for block in _blocks(slot, tensors, CHUNK if packer is None else NATIVE_CHUNKS * CHUNK):
        yield partial(piece, *block)


def _matrix(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of whatever shape, each as one row of a matrix."""
    return rows.reshape(len(rows), -1)


def _blocks(slot: Slot, tensors: list[Tensor], chunk: int) -> Iterator[tuple[Tensor, int, int, int, int]]:
    """The pieces in which a slot is packed, of about ``chunk`` numbers.

    Each is a tensor, its rows ``start`` to ``stop``, the packed row that they go to, and the panels from one to the
    next.
    """
    row = 0
    panels_apart = len(tensors) if slot.interleave and slot.layout == "panels" else 1
    for number, tensor in enumerate(tensors):
        height = tensor.array.shape[0]
        width = max(1, tensor.array.size // max(1, height))
        step = max(PANEL, chunk // width // PANEL * PANEL)
        if slot.interleave and slot.layout != "panels":
            step = PANEL
        for start in range(0, height, step):
            place = start * len(tensors) + number * PANEL if slot.interleave else row + start
            yield tensor, start, min(start + step, height), place, panels_apart
        row += height
