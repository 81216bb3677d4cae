"""How weights become 8, 6 and 4 bits: the definition, in NumPy. ``kernels/pack.h`` gives the same bits, faster.

All arithmetic is in float32, an operation at a time and in the order written, so that both agree to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bossa.formats.geometry import BLOCK, GROUP

F32 = NDArray[np.float32]

SMALLEST = np.float32(1e-30)
"""Rows with no number larger than this are stored as zeros: the inverse of their scale could not be relied on."""
LARGEST = np.float32(1e37)
"""Numbers larger than this are refused, so that no step of quantizing overflows."""

SHRUNK = tuple(np.float32(x) for x in (1.0, 0.93, 0.86))
"""Shares of a group's greatest and of its least number that are tried as the ends of its range, in all pairs."""
REACHES = tuple(np.float32(x) for x in (1.0, 0.985, 0.97, 0.955, 0.94))
"""Shares of a block's largest number that are tried as what its greatest level stands for, in 8 bits."""
FITS = 2
"""Times that scale and minimum are fitted to the numbers that the best range gave."""

TRIES = tuple((np.float32(by), np.float32(at)) for by in (0, -1) for at in (0, 0.5, 1))
"""What is tried for a ladder: how much more than the step that its group's whole range takes, and how far from the
range's lower end to its upper one it stands."""
MINIMA = 2
"""Minima that are tried with each, the second fitted to what the first gave."""
BIAS = np.float32(2.0 / GROUP)
"""The weight of a group's error as a whole, squared, beside the squares of its numbers': activations have means."""


@dataclass(frozen=True)
class TableRows:
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


@dataclass(frozen=True)
class Int8Rows:
    """Rows of 8-bit numbers in blocks of 32: ``w = q * block scale * scale``.

    Attributes:
        scales: [R].
        block_scales: [R, ceil(K / 32)] uint8.
        q: [R, K] int8, -127..127.
    """

    scales: F32
    block_scales: NDArray[np.uint8]
    q: NDArray[np.int8]

    def matrix(self) -> F32:
        """The rows that these numbers stand for."""
        multipliers = np.repeat(self.block_scales, BLOCK, axis=1)[:, : self.q.shape[1]].astype(np.float32)
        return self.q.astype(np.float32) * multipliers * self.scales[:, None]


@dataclass(frozen=True)
class LadderRows:
    """Rows of 6-bit or 4-bit numbers that are rungs between bytes, ``w = (u * step + minimum - 128) * scale``.

    Attributes:
        scales: [R].
        steps, minima: [R, ceil(K / 32)] uint8; ``u * step + minimum`` is at most 255.
        u: [R, K] uint8, 0..63 or 0..15.
    """

    scales: F32
    steps: NDArray[np.uint8]
    minima: NDArray[np.uint8]
    u: NDArray[np.uint8]

    def matrix(self) -> F32:
        """The rows that these numbers stand for."""
        steps, minima = (
            np.repeat(part, GROUP, axis=1)[:, : self.u.shape[1]].astype(np.int32) for part in (self.steps, self.minima)
        )
        return (self.u * steps + minima - 128).astype(np.float32) * self.scales[:, None]


@dataclass(frozen=True)
class GroupedRows:
    """Rows of 6-bit or 4-bit numbers in groups of 32: ``w = u * group scale * scale - minimum * step``.

    Attributes:
        scales, steps: [R].
        group_scales, minima: [R, ceil(K / 32)] uint8.
        u: [R, K] uint8, 0..63 or 0..15.
    """

    scales: F32
    steps: F32
    group_scales: NDArray[np.uint8]
    minima: NDArray[np.uint8]
    u: NDArray[np.uint8]

    def matrix(self) -> F32:
        """The rows that these numbers stand for, rounded as the kernels round them."""
        k = self.u.shape[1]
        multipliers = np.repeat(self.group_scales, GROUP, axis=1)[:, :k].astype(np.float32)
        less = np.repeat(self.minima, GROUP, axis=1)[:, :k].astype(np.float32) * self.steps[:, None]
        return self.u.astype(np.float32) * multipliers * self.scales[:, None] - less


def table_rows(rows: F32) -> TableRows:
    """Rounds each row to 255 levels, by its largest number. rows: [R, K], finite."""
    scales, inverse = _scale(np.abs(rows).max(axis=1, initial=0), 127)
    return TableRows(scales, np.rint(rows * inverse[:, None]).astype(np.int8))


def int8_rows(rows: F32) -> Int8Rows:
    """Rounds each block of 32 steps to 255 levels. rows: [R, K], finite.

    The row's scale is such that the block with its largest number reaches that with the block scale 255. A block tries
    the scales that reach the shares ``REACHES`` of its own largest number, and keeps the one of least squared error.
    """
    count, k = rows.shape
    blocks = -(-k // BLOCK)
    padded = np.zeros((count, blocks * BLOCK), np.float32)
    padded[:, :k] = rows
    x = padded.reshape(count, blocks, BLOCK)
    most = np.abs(x).max(axis=2, initial=0)  # [R, B]
    scales, inverse = _scale(most.max(axis=1, initial=0), 127 * 255)
    wanted = most * inverse[:, None] * np.float32(1 / 127)
    scaled = x * inverse[:, None, None]
    best, block_scales = np.full_like(most, np.inf), np.ones_like(most)
    for reach in REACHES:
        tried = np.clip(np.ceil(wanted * reach), np.float32(1), np.float32(255))
        error = np.zeros_like(most)
        for i in range(BLOCK):
            miss = scaled[:, :, i] - _eight_bits(scaled[:, :, i], tried) * tried
            error = error + miss * miss
        better = error < best
        best, block_scales = np.where(better, error, best), np.where(better, tried, block_scales)
    q = _eight_bits(scaled, block_scales[:, :, None])
    block_scales = np.where(scales[:, None] > 0, block_scales, np.float32(0))
    return Int8Rows(scales, block_scales.astype(np.uint8), q.reshape(count, blocks * BLOCK)[:, :k].astype(np.int8))


def _eight_bits(scaled: F32, block_scale: F32) -> F32:
    """The levels of numbers that are in units of their row's scale."""
    return np.clip(np.rint(scaled * (np.float32(1) / block_scale)), np.float32(-127), np.float32(127))


def grouped_rows(rows: F32, bits: int) -> GroupedRows:
    """Rounds each group of 32 steps to 2 ** bits levels, which are searched for the least squared error.

    rows: [R, K], finite. The row's scales are such that the widest group has the group scale 255, and the least number
    the minimum 255. A group tries the ranges that ``SHRUNK`` names, and from the best of them fits scale and minimum by
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
    scales, inverse = _scale(widest)
    steps, inverse_step = _scale(np.where(scales > 0, deepest, np.float32(0)))
    search = _Search(x, k, most, inverse, steps * inverse)
    span = inverse / most
    top, bottom, depth = high * span[:, None], low * span[:, None], -low * inverse_step[:, None]
    for a in SHRUNK:
        for b in SHRUNK:
            search.attempt(a * top - b * bottom, b * depth)
    for _ in range(FITS):
        search.fit(inverse_step * scales)
    u = search.levels(search.scale, search.minimum).reshape(count, groups * GROUP)[:, :k]
    used = (scales > 0)[:, None]
    group_scales = np.where(used, search.scale, np.float32(0)).astype(np.uint8)
    minima = np.where(used, search.minimum, np.float32(0)).astype(np.uint8)
    return GroupedRows(scales, steps, group_scales, minima, np.where(used, u, np.float32(0)).astype(np.uint8))


def ladder_rows(rows: F32, bits: int) -> LadderRows:
    """Rounds each row to bytes of which each group of 32 steps uses 2 ** bits, evenly apart.

    rows: [R, K], finite. The row's largest number is the byte 127 more than zero, or less. A group tries what ``TRIES``
    names, and keeps what has the least error: the sum of squares, and ``BIAS`` times the square of the sum.
    """
    count, k = rows.shape
    levels = np.float32(2**bits - 1)
    groups = -(-k // GROUP)
    scales, inverse = _scale(np.abs(rows).max(axis=1, initial=0), 127)
    padded = np.zeros((count, groups * GROUP), np.float32)
    padded[:, :k] = rows * inverse[:, None]
    search = _LadderSearch(padded.reshape(count, groups, GROUP), k, levels)
    span, low = search.range()
    whole = np.ceil(span / levels)
    for by, at in TRIES:
        step = np.clip(whole + by, np.float32(1), np.float32(255 // (2**bits - 1)))
        search.attempt(step, low + (span - step * levels) * at)
    u = search.numbers().reshape(count, groups * GROUP)[:, :k]
    used = (scales > 0)[:, None]
    steps = np.where(used, search.step, np.float32(0)).astype(np.uint8)
    minima = (np.where(used, search.minimum, np.float32(0)) + np.float32(128)).astype(np.uint8)
    return LadderRows(scales, steps, minima, np.where(used, u, np.float32(0)).astype(np.uint8))


class _LadderSearch:
    """Looks for the step and minimum of every group, in units of its row's scale."""

    def __init__(self, x: F32, k: int, levels: np.float32) -> None:
        """x: [R, G, 32], of which the first ``k`` steps of a row count; levels: the greatest number."""
        self.x = x
        self.levels = levels
        self.counts = (np.arange(x.shape[1] * GROUP) < k).reshape(x.shape[1], GROUP)
        self.n = self.counts.sum(axis=1).astype(np.float32)
        self.best = np.full(x.shape[:2], np.inf, np.float32)
        self.step = np.ones(x.shape[:2], np.float32)
        self.minimum = np.zeros(x.shape[:2], np.float32)

    def range(self) -> tuple[F32, F32]:
        """The width of each group's range, and its lower end. [R, G]"""
        high = np.where(self.counts, self.x, np.float32(-128)).max(axis=2, initial=-128)
        low = np.where(self.counts, self.x, np.float32(128)).min(axis=2, initial=128)
        return high - low, low

    def attempt(self, step: F32, wanted: F32) -> None:
        """Tries a step with the minimum that is wanted, and what fits best after it."""
        for _ in range(MINIMA):
            low = np.clip(np.rint(wanted), np.float32(-128), np.float32(127))
            error = np.zeros_like(step)
            bias = np.zeros_like(step)
            for i in range(GROUP):
                above = self.x[:, :, i] - low
                miss = above - self._level(above, step, low) * step
                error = np.where(self.counts[:, i], error + miss * miss, error)
                bias = np.where(self.counts[:, i], bias + miss, bias)
            error = error + bias * bias * BIAS
            better = error < self.best
            self.best = np.where(better, error, self.best)
            self.step = np.where(better, step, self.step)
            self.minimum = np.where(better, low, self.minimum)
            wanted = low + bias / self.n

    def numbers(self) -> F32:
        """The number of every weight. [R, G, 32]"""
        step, low = self.step[:, :, None], self.minimum[:, :, None]
        return self._level(self.x - low, step, low)

    def _level(self, above: F32, step: F32, low: F32) -> F32:
        """The nearest of the numbers whose byte is one."""
        top = np.minimum(np.floor((np.float32(127) - low) / step), self.levels)
        nearest: F32 = np.minimum(np.maximum(np.rint(above * (np.float32(1) / step)), np.float32(0)), top)
        return nearest


def _scale(most: F32, levels: int = 255) -> tuple[F32, F32]:
    """The step of which ``levels`` make ``most``, and its inverse; zeros where that is too small."""
    count = np.float32(levels)
    some = most >= SMALLEST
    return (
        np.where(some, most / count, np.float32(0)),
        np.where(some, count / np.where(some, most, np.float32(1)), np.float32(0)),
    )


class _Search:
    """Looks for the scale and minimum of every group, in units of its row's scale and step."""

    def __init__(self, x: F32, k: int, most: np.float32, inverse: F32, ratio: F32) -> None:
        """x: [R, G, 32], of which the first ``k`` steps of a row count; most: the greatest level.

        ratio: a row's step in units of its scale.
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
        """Tries the least-squares scale and minimum for the numbers as they are. per_unit: steps in a unit of scale."""
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
        """The number of every weight. [R, G, 32]"""
        return self._level(self.x + (minimum * self.ratio)[:, :, None], (np.float32(1) / scale)[:, :, None])

    def _counts(self, i: int) -> NDArray[np.bool_]:
        """Which groups have a step ``i``. [G]"""
        return np.arange(self.x.shape[1]) * GROUP + i < self.k

    def _level(self, shifted: F32, inverse: F32) -> F32:
        nearest: F32 = np.rint(shifted * inverse)
        return np.minimum(np.maximum(nearest, np.float32(0)), self.most)
