"""int8: 8-bit integers, in blocks of 32 with a scale each in panels, with a scale a row in tables.

The blocks are those of Q8_0 (llama.cpp), but that a block's scale is an 8-bit multiple of a scale that its output has,
and is searched for: docs/decisions/quantization.md has what that gains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bossa.formats.format import Format, places
from bossa.formats.geometry import ALIGNMENT, PANEL, round_up
from bossa.formats.rounding import scale_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bossa.formats.format import F32, U8
else:
    from bossa.formats.lazy import np

BLOCK = 32
"""Inputs that share a scale in panels."""
REACHES = (1.0, 0.985, 0.97, 0.955, 0.94)
"""Shares of a block's largest number that are tried as what its greatest level stands for."""


@dataclass(frozen=True)
class Blocks:
    """Rows of 8-bit numbers in blocks of 32: ``w = q * block scale * scale``.

    Attributes:
        scales: [R].
        block_scales: [R, ceil(K / 32)] uint8.
        q: [R, K] int8, -127..127.
    """

    scales: F32
    block_scales: U8
    q: NDArray[np.int8]

    def matrix(self) -> F32:
        """The rows that these numbers stand for."""
        multipliers = np.repeat(self.block_scales, BLOCK, axis=1)[:, : self.q.shape[1]].astype(np.float32)
        return self.q.astype(np.float32) * multipliers * self.scales[:, None]


@dataclass(frozen=True)
class ScaledRows:
    """Rows of 8-bit numbers with a scale each: ``w = q * scale``.

    Attributes:
        scales: [R].
        q: [R, K] int8, -127..127.
    """

    scales: F32
    q: NDArray[np.int8]

    def matrix(self) -> F32:
        """The rows that these numbers stand for."""
        return self.q.astype(np.float32) * self.scales[:, None]


def quantize(rows: F32) -> Blocks:
    """Rounds each block of 32 inputs to 255 levels. rows: [R, K], finite.

    The row's scale is such that the block with its largest number reaches that with the block scale 255. A block tries
    the scales that reach the shares ``REACHES`` of its own largest number, and keeps the one of least squared error.
    """
    count, k = rows.shape
    blocks = -(-k // BLOCK)
    padded = np.zeros((count, blocks * BLOCK), np.float32)
    padded[:, :k] = rows
    x = padded.reshape(count, blocks, BLOCK)
    most = np.abs(x).max(axis=2, initial=0)  # [R, B]
    scales, inverse = scale_of(most.max(axis=1, initial=0), 127 * 255)
    wanted = most * inverse[:, None] * np.float32(1 / 127)
    scaled = x * inverse[:, None, None]
    best, block_scales = np.full_like(most, np.inf), np.ones_like(most)
    for reach in REACHES:
        tried = np.clip(np.ceil(wanted * np.float32(reach)), np.float32(1), np.float32(255))
        error = np.zeros_like(most)
        for i in range(BLOCK):
            miss = scaled[:, :, i] - _levels(scaled[:, :, i], tried) * tried
            error = error + miss * miss
        better = error < best
        best, block_scales = np.where(better, error, best), np.where(better, tried, block_scales)
    q = _levels(scaled, block_scales[:, :, None])
    block_scales = np.where(scales[:, None] > 0, block_scales, np.float32(0))
    return Blocks(scales, block_scales.astype(np.uint8), q.reshape(count, blocks * BLOCK)[:, :k].astype(np.int8))


def _levels(scaled: F32, block_scale: F32) -> F32:
    """The levels of numbers that are in units of their row's scale."""
    return np.clip(np.rint(scaled * (np.float32(1) / block_scale)), np.float32(-127), np.float32(127))


def quantize_rows(rows: F32) -> ScaledRows:
    """Rounds each row to 255 levels, by its largest number. rows: [R, K], finite."""
    scales, inverse = scale_of(np.abs(rows).max(axis=1, initial=0), 127)
    return ScaledRows(scales, np.rint(rows * inverse[:, None]).astype(np.int8))


@dataclass(frozen=True)
class Int8(Format):
    """A panel is fp32 scales [16], uint8 block scales [B][16] up to whole lines, and int8 q [2 ceil(K / 4)][16][2]."""

    def panel_bytes(self, k: int) -> int:
        return 4 * PANEL + -(-k // (4 * BLOCK)) * ALIGNMENT + -(-k // 4) * 4 * PANEL

    def activation_bytes(self, k: int) -> int:
        return round_up(k, 64) * 2 + 64

    def put(self, rows: F32, panels: U8, first: int, panel_step: int = 1) -> None:
        quantized = quantize(rows)
        scales, block_scales, q = self._parts(panels, rows.shape[1])
        panel, lane = places(first, len(rows), panel_step)
        padded = np.zeros((len(rows), q.shape[1] * 2), np.int8)
        padded[:, : rows.shape[1]] = quantized.q
        scales[panel, lane] = quantized.scales
        block_scales[panel, :, lane] = quantized.block_scales
        q[panel, :, lane, :] = padded.reshape(len(padded), -1, 2)

    def get(self, panels: U8, k: int, count: int) -> F32:
        scales, block_scales, q = self._parts(panels, k)
        panel, lane = places(0, count)
        numbers = q[panel, :, lane, :].reshape(count, q.shape[1] * 2)[:, :k]
        return Blocks(scales[panel, lane], block_scales[panel, :, lane], numbers).matrix()

    def _parts(self, data: U8, k: int) -> tuple[F32, U8, NDArray[np.int8]]:
        """Views of the parts of panels: scales [P, 16], block scales [P, B, 16], and q [P, 2 ceil(K / 4), 16, 2]."""
        panels = data.reshape(-1, self.panel_bytes(k))
        blocks = -(-k // BLOCK)
        return (
            panels[:, :64].view(np.float32),
            panels[:, 64 : 64 + blocks * PANEL].reshape(len(panels), blocks, PANEL),
            panels[:, 64 + -(-blocks // 4) * 64 :].view(np.int8).reshape(len(panels), -1, PANEL, 2),
        )

    def table_bytes(self, height: int, width: int) -> int:
        return self._head(height) + height * width

    def put_table(self, rows: F32, table: U8, height: int, first: int) -> None:
        quantized = quantize_rows(rows)
        scales, q = self._table(table, height)
        scales[first : first + len(rows)] = quantized.scales
        q[first : first + len(rows)] = quantized.q

    def get_table(self, table: U8, height: int) -> F32:
        return ScaledRows(*self._table(table, height)).matrix()

    def _head(self, height: int) -> int:
        """Bytes of the scales before a table."""
        return round_up(4 * height, ALIGNMENT)

    def _table(self, table: U8, height: int) -> tuple[F32, NDArray[np.int8]]:
        """Views of the parts of a table: scales [V] and q [V, D]."""
        return table[: 4 * height].view(np.float32), table[self._head(height) :].view(np.int8).reshape(height, -1)


FORMATS = (Int8("int8", 8, "int16", ("panels", "rows"), "Int8", "formats/int8.h"),)
