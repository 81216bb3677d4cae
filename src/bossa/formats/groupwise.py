"""int4 and int6: group-wise quantization with minima, 32 inputs a group.

The layout is that of llama.cpp's k-quants (Q4_K: https://github.com/ggml-org/llama.cpp/pull/1684): a group has a scale
and a minimum of few bits, in units of two floats. Here these are those of an output, not of a super-block of 256, and
scales have 8 bits, which is what lets them be a factor of an integer product. The search for scale and minimum is our
own, in the manner of ``make_qkx2_quants`` there: ranges that are a little narrower, then least squares.
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
    from numpy.typing import NDArray

    from bossa.formats.format import F32, U8
else:
    from bossa.formats.lazy import np

SHARES = (1.0, 0.93, 0.86)
"""Shares of a group's greatest and of its least number that are tried as the ends of its range, in all pairs."""
FITS = 2
"""Times that scale and minimum are fitted to the numbers that the best range gave."""
HEAD = 2 * 4 * PANEL
"""Bytes of the floats before a panel's groups."""


@dataclass(frozen=True)
class GroupedRows:
    """Rows of 4-bit or 6-bit numbers in groups of 32: ``w = u * group scale * scale - minimum * unit of minima``.

    Attributes:
        scales, minima_units: [R], the units of group scales and of minima.
        group_scales, minima: [R, ceil(K / 32)] uint8.
        u: [R, K] uint8, 0..63 or 0..15.
    """

    scales: F32
    minima_units: F32
    group_scales: U8
    minima: U8
    u: U8

    def matrix(self) -> F32:
        """The rows that these numbers stand for, rounded as the kernels round them."""
        k = self.u.shape[1]
        multipliers = np.repeat(self.group_scales, GROUP, axis=1)[:, :k].astype(np.float32)
        less = np.repeat(self.minima, GROUP, axis=1)[:, :k].astype(np.float32) * self.minima_units[:, None]
        return self.u.astype(np.float32) * multipliers * self.scales[:, None] - less


def quantize(rows: F32, bits: int) -> GroupedRows:
    """Rounds each group of 32 inputs to 2 ** bits levels, which are searched for the least squared error.

    rows: [R, K], finite. The row's scales are such that the widest group has the group scale 255, and the least number
    the minimum 255. A group tries the ranges that ``SHARES`` names, and from the best of them fits scale and minimum by
    least squares.
    """
    count, k = rows.shape
    most = np.float32(2**bits - 1)
    groups = -(-k // GROUP)
    padded = np.zeros((count, groups * GROUP), np.float32)
    padded[:, :k] = rows
    x = padded.reshape(count, groups, GROUP)
    high, low = x.max(axis=2, initial=0), x.min(axis=2, initial=0)  # [R, G]
    widest = ((high - low) / most).max(axis=1, initial=0)
    deepest = (-low).max(axis=1, initial=0)
    scales, inverse = scale_of(widest)
    minima_units, inverse_unit = scale_of(np.where(scales > 0, deepest, np.float32(0)))
    search = _Search(x, k, most, inverse, minima_units * inverse)
    span = inverse / most
    top, bottom, depth = high * span[:, None], low * span[:, None], -low * inverse_unit[:, None]
    for a in map(np.float32, SHARES):
        for b in map(np.float32, SHARES):
            search.attempt(a * top - b * bottom, b * depth)
    for _ in range(FITS):
        search.fit(inverse_unit * scales)
    u = search.levels(search.scale, search.minimum).reshape(count, groups * GROUP)[:, :k]
    used = (scales > 0)[:, None]
    group_scales = np.where(used, search.scale, np.float32(0)).astype(np.uint8)
    minima = np.where(used, search.minimum, np.float32(0)).astype(np.uint8)
    return GroupedRows(scales, minima_units, group_scales, minima, np.where(used, u, np.float32(0)).astype(np.uint8))


class _Search:
    """Looks for the scale and minimum of every group, in their row's units."""

    def __init__(self, x: F32, k: int, most: np.float32, inverse: F32, ratio: F32) -> None:
        """x: [R, G, 32], of which the first ``k`` inputs of a row count; most: the greatest level.

        ratio: a row's unit of minima in units of its scale.
        """
        self.x = x * inverse[:, None, None]
        self.ratio = ratio[:, None]
        self.k = k
        self.most = most
        shape = x.shape[:2]
        self.best = np.full(shape, np.inf, np.float32)
        self.scale = np.ones(shape, np.float32)
        self.minimum = np.zeros(shape, np.float32)

    def attempt(self, scale: F32, minimum: F32) -> None:
        """Takes these, rounded, where the sum of squared errors is less than the best so far."""
        scale = np.minimum(np.maximum(np.rint(scale), np.float32(1)), np.float32(255))
        minimum = np.minimum(np.maximum(np.rint(minimum), np.float32(0)), np.float32(255))
        shift, inverse = minimum * self.ratio, np.float32(1) / scale
        error = np.zeros_like(scale)
        for i in range(GROUP):
            shifted = self.x[:, :, i] + shift
            miss = shifted - self._level(shifted, inverse) * scale
            error = np.where(self._counts(i), error + miss * miss, error)
        better = error < self.best
        self.best = np.where(better, error, self.best)
        self.scale = np.where(better, scale, self.scale)
        self.minimum = np.where(better, minimum, self.minimum)

    def fit(self, per_unit: F32) -> None:
        """Tries the least-squares scale and minimum for the levels as they are.

        per_unit: units of minima in a unit of scale.
        """
        shift, inverse = self.minimum * self.ratio, np.float32(1) / self.scale
        n = np.minimum(self.k - GROUP * np.arange(self.x.shape[1]), GROUP).astype(np.float32)
        su = suu = sx = sux = np.zeros(shift.shape, np.float32)
        for i in range(GROUP):
            counts = self._counts(i)
            x = np.where(counts, self.x[:, :, i], np.float32(0))
            u = np.where(counts, self._level(self.x[:, :, i] + shift, inverse), np.float32(0))
            su, suu, sx, sux = su + u, suu + u * u, sx + x, sux + u * x
        spread = n * suu - su * su
        ok = spread > 0
        scale = np.where(ok, (n * sux - su * sx) / np.where(ok, spread, np.float32(1)), self.scale)
        scale = np.minimum(np.maximum(np.rint(scale), np.float32(1)), np.float32(255))
        self.attempt(scale, (scale * su - sx) / n * per_unit[:, None])

    def levels(self, scale: F32, minimum: F32) -> F32:
        """The level of every weight. [R, G, 32]"""
        return self._level(self.x + (minimum * self.ratio)[:, :, None], (np.float32(1) / scale)[:, :, None])

    def _counts(self, i: int) -> NDArray[np.bool_]:
        """Which groups have an input ``i``. [G]"""
        return np.arange(self.x.shape[1]) * GROUP + i < self.k

    def _level(self, shifted: F32, inverse: F32) -> F32:
        nearest: F32 = np.rint(shifted * inverse)
        return np.minimum(np.maximum(nearest, np.float32(0)), self.most)


@dataclass(frozen=True)
class Groupwise(Format):
    """A panel is fp32 scales [16], fp32 units of minima [16], and its groups."""

    def panel_bytes(self, k: int) -> int:
        return HEAD + group_bytes(k, self.bits)

    def activation_bytes(self, k: int) -> int:
        # Bytes, then for each 128 of them a scale and the sums of four groups.
        return round_up(-(-k // 128) * 144, 64) + 64

    def put(self, rows: F32, panels: U8, first: int, panel_step: int = 1) -> None:
        quantized, where = quantize(rows, self.bits), places(first, len(rows), panel_step)
        scales, minima_units, groups = self._parts(panels, rows.shape[1])
        scales[where] = quantized.scales
        minima_units[where] = quantized.minima_units
        groups.put(quantized.group_scales, quantized.minima, quantized.u, where)

    def get(self, panels: U8, k: int, count: int) -> F32:
        scales, minima_units, groups = self._parts(panels, k)
        where = places(0, count)
        return GroupedRows(scales[where], minima_units[where], *groups.get(where)).matrix()

    def _parts(self, data: U8, k: int) -> tuple[F32, F32, Groups]:
        """Views of the parts of packed panels: scales and units of minima [P, 16], and the groups."""
        panels = data.reshape(-1, self.panel_bytes(k))
        floats = panels[:, :HEAD].view(np.float32)
        return floats[:, :PANEL], floats[:, PANEL:], Groups(panels[:, HEAD:], self.bits, k)


FORMATS = (
    Groupwise("int4", 4, "int8", ("panels",), "Int4", "formats/groupwise.h"),
    Groupwise("int6", 6, "int8", ("panels",), "Int6", "formats/groupwise.h"),
)
