"""int4-a8 and int6-a8: progressive (two-level) group quantization; int4-a16 and int6-a16: with activations of 16 bits.

An output is quantized to a grid of 8 bits with one float scale, and each group of 32 on that grid to 4 or 6 bits with
an integer scale and an integer minimum, so that a group widens to 8-bit integers without a float. That is the
progressive group quantization of QServe (W4A8, https://arxiv.org/abs/2405.04532), whose groups have a zero point in
place of the minimum. The search for both is our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bossa.formats.format import Format, places
from bossa.formats.geometry import PANEL, round_up
from bossa.formats.groups import GROUP, Groups, group_bytes
from bossa.formats.rounding import scale_of

if TYPE_CHECKING:
    import numpy as np

    from bossa.formats.format import F32, U8
else:
    from bossa.formats.lazy import np

ZERO = 128
"""The 8-bit level of a weight that is zero."""
TRIES = tuple((less, at) for less in (0, 1) for at in (0.0, 0.5, 1.0))
"""What is tried for a group: the smallest scale whose levels span its range or one less, and its levels at the lower
end of the range, in its middle and at the upper end."""
MINIMA = 2
"""Minima that are tried with each, the second fitted to what the first gave."""
BIAS = 2.0 / GROUP
"""The weight of a group's error as a whole, squared, beside the squares of its numbers': activations have means."""
HEAD = 4 * PANEL
"""Bytes of the floats before a panel's groups."""


@dataclass(frozen=True)
class ProgressiveRows:
    """Rows quantized in two levels: ``q = u * group scale + minimum``, at most 255, and ``w = (q - 128) * scale``.

    Attributes:
        scales: [R], of the first level.
        group_scales, minima: [R, ceil(K / 32)] uint8, of the second.
        u: [R, K] uint8, 0..63 or 0..15.
    """

    scales: F32
    group_scales: U8
    minima: U8
    u: U8

    def matrix(self) -> F32:
        """The rows that these numbers stand for."""
        group_scales, minima = (
            np.repeat(part, GROUP, axis=1)[:, : self.u.shape[1]].astype(np.int32)
            for part in (self.group_scales, self.minima)
        )
        return (self.u * group_scales + minima - ZERO).astype(np.float32) * self.scales[:, None]


def quantize(rows: F32, bits: int) -> ProgressiveRows:
    """Rounds each group of 32 inputs to 2 ** bits evenly spaced levels of its row's 8-bit grid.

    rows: [R, K], finite. The row's largest number is 127 levels of 8 bits above zero, or below. A group tries what
    ``TRIES`` names, and keeps what has the least error: the sum of squares, and ``BIAS`` times the square of the sum.
    """
    count, k = rows.shape
    most = np.float32(2**bits - 1)
    groups = -(-k // GROUP)
    scales, inverse = scale_of(np.abs(rows).max(axis=1, initial=0), 127)
    padded = np.zeros((count, groups * GROUP), np.float32)
    padded[:, :k] = rows * inverse[:, None]
    search = _Search(padded.reshape(count, groups, GROUP), k, most)
    span, low = search.range()
    whole = np.ceil(span / most)
    for less, at in TRIES:
        scale = np.clip(whole - np.float32(less), np.float32(1), np.float32(255 // (2**bits - 1)))
        search.attempt(scale, low + (span - scale * most) * np.float32(at))
    u = search.levels().reshape(count, groups * GROUP)[:, :k]
    used = (scales > 0)[:, None]
    group_scales = np.where(used, search.scale, np.float32(0)).astype(np.uint8)
    minima = (np.where(used, search.minimum, np.float32(0)) + np.float32(ZERO)).astype(np.uint8)
    return ProgressiveRows(scales, group_scales, minima, np.where(used, u, np.float32(0)).astype(np.uint8))


class _Search:
    """Looks for the scale and minimum of every group on its row's 8-bit grid, zero being the level 0 here."""

    def __init__(self, x: F32, k: int, most: np.float32) -> None:
        """x: [R, G, 32] in units of the row's scale, whose first ``k`` inputs count; most: the greatest level."""
        self.x = x
        self.most = most
        self.counts = (np.arange(x.shape[1] * GROUP) < k).reshape(x.shape[1], GROUP)
        self.n = self.counts.sum(axis=1).astype(np.float32)
        self.best = np.full(x.shape[:2], np.inf, np.float32)
        self.scale = np.ones(x.shape[:2], np.float32)
        self.minimum = np.zeros(x.shape[:2], np.float32)

    def range(self) -> tuple[F32, F32]:
        """The width of each group's range, and its lower end. [R, G]"""
        high = np.where(self.counts, self.x, np.float32(-128)).max(axis=2, initial=-128)
        low = np.where(self.counts, self.x, np.float32(128)).min(axis=2, initial=128)
        return high - low, low

    def attempt(self, scale: F32, wanted: F32) -> None:
        """Tries a scale with the minimum that is wanted, and with those that fit best after it."""
        for _ in range(MINIMA):
            minimum = np.clip(np.rint(wanted), np.float32(-128), np.float32(127))
            error = np.zeros_like(scale)
            bias = np.zeros_like(scale)
            for i in range(GROUP):
                above = self.x[:, :, i] - minimum
                miss = above - self._level(above, scale, minimum) * scale
                error = np.where(self.counts[:, i], error + miss * miss, error)
                bias = np.where(self.counts[:, i], bias + miss, bias)
            error = error + bias * bias * np.float32(BIAS)
            better = error < self.best
            self.best = np.where(better, error, self.best)
            self.scale = np.where(better, scale, self.scale)
            self.minimum = np.where(better, minimum, self.minimum)
            wanted = minimum + bias / self.n

    def levels(self) -> F32:
        """The level of every weight. [R, G, 32]"""
        scale, minimum = self.scale[:, :, None], self.minimum[:, :, None]
        return self._level(self.x - minimum, scale, minimum)

    def _level(self, above: F32, scale: F32, minimum: F32) -> F32:
        """The nearest of the levels that are on the 8-bit grid."""
        top = np.minimum(np.floor((np.float32(127) - minimum) / scale), self.most)
        nearest: F32 = np.minimum(np.maximum(np.rint(above * (np.float32(1) / scale)), np.float32(0)), top)
        return nearest


@dataclass(frozen=True)
class Progressive(Format):
    """A panel is fp32 scales [16], and its groups."""

    def panel_bytes(self, k: int) -> int:
        return HEAD + group_bytes(k, self.bits)

    def activation_bytes(self, k: int) -> int:
        # Words, though the kernels of some processors need less; and a scale.
        return round_up(k, 64) * 2 + 64

    def put(self, rows: F32, panels: U8, first: int, panel_step: int = 1) -> None:
        quantized, where = quantize(rows, self.bits), places(first, len(rows), panel_step)
        scales, groups = self._parts(panels, rows.shape[1])
        scales[where] = quantized.scales
        groups.put(quantized.group_scales, quantized.minima, quantized.u, where)

    def get(self, panels: U8, k: int, count: int) -> F32:
        scales, groups = self._parts(panels, k)
        where = places(0, count)
        return ProgressiveRows(scales[where], *groups.get(where)).matrix()

    def _parts(self, data: U8, k: int) -> tuple[F32, Groups]:
        """Views of the parts of packed panels: scales [P, 16], and the groups."""
        panels = data.reshape(-1, self.panel_bytes(k))
        return panels[:, :HEAD].view(np.float32), Groups(panels[:, HEAD:], self.bits, k)


FORMATS = (
    Progressive("int4-a8", 4, "int8", ("panels",), "Int4A8", "formats/progressive.h"),
    Progressive("int6-a8", 6, "int8", ("panels",), "Int6A8", "formats/progressive.h"),
    Progressive("int4-a16", 4, "int16", ("panels",), "Int4A16", "formats/progressive.h"),
    Progressive("int6-a16", 6, "int16", ("panels",), "Int6A16", "formats/progressive.h"),
)
