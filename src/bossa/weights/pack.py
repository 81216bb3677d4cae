"""Packing: from a checkpoint's tensors to the bytes that the kernels read, a few panels at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bossa.errors import WeightsError
from bossa.formats.geometry import PANEL
from bossa.formats.panels import GroupedPanels, Int8Panels, LadderPanels, places
from bossa.formats.precision import GROUP_BITS, LADDER_BITS, QUANTIZED, DType
from bossa.formats.quantize import LARGEST, grouped_rows, int8_rows, ladder_rows, table_rows
from bossa.ir.slot import Slot, Source
from bossa.weights.packer import STORED, Packer
from bossa.weights.source import widen
from bossa.weights.unpack import table_parts

CHUNK = 1 << 18
"""Numbers that are converted at a time: small enough for the cache, large enough for NumPy."""
NATIVE_CHUNKS = 4
"""Chunks that native code converts at a time: it needs no more memory for more, and calls cost something."""

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

    def rows(self, start: int, stop: int, stored: DType) -> NDArray[Any]:
        """Rows of the matrix (elements of a vector): the bits of bfloat16 for that, else float32.

        Raises:
            WeightsError: a number is NaN or infinite, or too large for what it is to be stored as.
        """
        part = self.array[start:stop]
        if stored == "bf16" and self.dtype == "BF16":
            if part.size and int(_largest(part)) >= INFINITY:
                self.refuse()
            return part
        wide = widen(part, self.dtype, self.name, self.where)
        with np.errstate(over="ignore", invalid="ignore"):
            total = wide.sum(dtype=np.float32)
        if not np.isfinite(total) and not np.isfinite(wide).all():
            self.refuse()
        if stored == "fp32":
            return wide
        if stored in QUANTIZED:
            if wide.size and max(wide.max(), -wide.min()) > LARGEST:
                self.refuse_size(stored)
            return wide
        bits = to_bf16(wide)
        if bits.size and int(_largest(bits)) >= INFINITY:
            self.refuse_size(stored)
        return bits

    def refuse(self) -> NoReturn:
        raise WeightsError(f"{self.where}: tensor {self.name!r} has NaN or infinite numbers: pass undamaged weights")

    def refuse_size(self, stored: DType) -> NoReturn:
        raise WeightsError(
            f"{self.where}: tensor {self.name!r} has a number that is too large for {stored}: compile with fp32"
        )

    def pack_natively(
        self, packer: Packer, start: int, stop: int, stored: DType, place: tuple[int, int], out: NDArray[np.uint8]
    ) -> None:
        """Packs rows by a packer; place: the packed row that they go to, and the panels from one to the next.

        Raises:
            WeightsError: as ``rows`` does, or there is no memory.
        """
        result = packer.pack(self.array[start:stop], self.dtype, stored, *place, out)
        if result == "not finite":
            self.refuse()
        if result == "too large":
            self.refuse_size(stored)
        if result == "no memory":
            raise WeightsError(f"{self.where}: tensor {self.name!r} cannot be packed: there is no memory left")

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


def _largest(bits: NDArray[np.uint16]) -> np.uint16:
    return np.max(bits & SIGNLESS)  # type: ignore[no-any-return]


def pack(
    slot: Slot, tensors: list[Tensor], out: NDArray[np.uint8], packer: Packer | None = None
) -> Iterator[Callable[[], None]]:
    """Yields the pieces of work that pack a slot into ``out``, its ``nbytes`` bytes, which must be zero.

    The pieces write to different bytes, so that they may run in any order and on several threads. A packer does the
    work for matrices where it can; the bytes are the same.

    Raises:
        WeightsError: (by a piece) a tensor has a number that cannot be packed.
    """
    if not slot.nbytes:
        return
    put = _panel_writer(slot, out) if slot.layout == "panels" else _table_writer(slot, out)

    def piece(tensor: Tensor, start: int, stop: int, row: int, panel_step: int) -> None:
        if packer is not None and slot.layout == "panels" and tensor.native:
            tensor.pack_natively(packer, start, stop, slot.dtype, (row, panel_step), out)
        else:
            put(tensor.rows(start, stop, slot.dtype), row, panel_step)

    for block in _blocks(slot, tensors, CHUNK if packer is None else NATIVE_CHUNKS * CHUNK):
        yield partial(piece, *block)


Put = Callable[[NDArray[Any], int, int], None]
"""Writes rows to their places: the packed row of the first, and the panels from one to the next."""


def _panel_writer(slot: Slot, out: NDArray[np.uint8]) -> Put:
    n, k = slot.shape
    if slot.dtype == "int8":
        eight = Int8Panels(out, k)
        return lambda rows, row, step: eight.put(int8_rows(rows), places(row, len(rows), step))
    if slot.dtype in GROUP_BITS:
        grouped = GroupedPanels(out, slot.dtype, k)
        return lambda rows, row, step: grouped.put(grouped_rows(rows, grouped.bits), places(row, len(rows), step))
    if slot.dtype in LADDER_BITS:
        ladders = LadderPanels(out, slot.dtype, k)
        return lambda rows, row, step: ladders.put(ladder_rows(rows, ladders.bits), places(row, len(rows), step))
    panels = out.view(np.float32 if slot.dtype == "fp32" else np.uint16).reshape(-(-n // PANEL), k, PANEL)
    return lambda rows, row, step: _put_rows(rows, panels, row, step)


def _table_writer(slot: Slot, out: NDArray[np.uint8]) -> Put:
    if slot.dtype == "int8":
        scales, q = table_parts(slot, out)

        def put(rows: NDArray[Any], row: int, _: int) -> None:
            packed = table_rows(rows.reshape(len(rows), -1))
            scales[row : row + len(rows)] = packed.scales
            q[row : row + len(rows)] = packed.q

        return put
    width = prod(slot.shape[1:])
    table = out.view(np.float32 if slot.dtype == "fp32" else np.uint16).reshape(-1, width)

    def put_as_they_are(rows: NDArray[Any], row: int, _: int) -> None:
        table[row : row + len(rows)] = rows.reshape(len(rows), width)

    return put_as_they_are


def _put_rows(rows: NDArray[Any], panels: NDArray[Any], row: int, step: int) -> None:
    """Puts rows ``[R, K]`` into panels ``[P, K, 16]`` from packed row ``row`` on."""
    lane, panel = row % PANEL, row // PANEL
    count, k = rows.shape
    done = min(-lane % PANEL, count)
    if done:
        panels[panel, :, lane : lane + done] = rows[:done].T
        panel += step
    whole = (count - done) // PANEL
    if whole:
        shaped = rows[done : done + whole * PANEL].reshape(whole, PANEL, k).transpose(0, 2, 1)
        panels[panel : panel + whole * step : step] = shaped
        done += whole * PANEL
        panel += whole * step
    if done < count:
        panels[panel, :, : count - done] = rows[done:].T


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
