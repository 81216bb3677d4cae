"""int4 and int6: what groups of few bits keep of a row, their bytes, and their linears."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bossa.formats.groupwise import quantize
from support.formats import (
    GROUP,
    QuantizedFormat,
    Weights,
    by_group,
    bytes_of,
    group_number,
    heads_of,
    inverse_of,
    largest_of,
    quads_of,
    rows_of_sizes,
)

F32 = NDArray[np.float32]
BLOCK = 128
"""Inputs in one integer sum, each block of activations with a scale of its own."""
sizes = {"count": st.integers(1, 5), "k": st.integers(1, 100), "seed": st.integers(0, 999)}
relaxed = settings(max_examples=100, deadline=None)


class GroupwiseWeights(Weights):
    def parts(self) -> list[NDArray[np.uint8]]:
        n, k, groups = self.n, self.k, -(-self.k // GROUP)
        u = self.some(0, 2**self.bits, k, groups * GROUP)
        scales, minima = (self.some(0, 256, groups, groups) for _ in range(2))
        self.minima_units = self.floats()
        self.minima = minima[:n]
        self.integers = u[:n, :k] * np.repeat(scales[:n], GROUP, axis=1)[:, :k]
        floats = [bytes_of(part.reshape(self.panels, 16)) for part in (self.scale, self.minima_units)]
        return [*floats, heads_of(scales, minima), quads_of(u, self.bits)]

    @property
    def matrix(self) -> F32:
        less = self.minima.astype(np.float32) * self.minima_units[: self.n, None]
        return super().matrix - np.repeat(less, GROUP, axis=1)[:, : self.k]

    def by_definition(self, x: F32) -> F32:
        """Blocks of bytes with a scale each; their sums are scaled by outputs and blocks and added in order by FMAs."""
        total = np.zeros((len(x), self.n), np.float32)
        for start in range(0, self.k, BLOCK):
            part = x[:, start : start + BLOCK]
            largest = largest_of(part)
            q = np.rint(part * inverse_of(127, largest)).astype(np.int64)
            piece = (q @ self.integers[:, start : start + BLOCK].T).astype(np.float32)
            piece = piece * self.scale[: self.n]
            groups = np.add.reduceat(q, range(0, q.shape[1], GROUP), axis=1)
            less = groups @ self.minima[:, start // GROUP : start // GROUP + groups.shape[1]].T
            piece = (piece - less.astype(np.longdouble) * self.minima_units[: self.n]).astype(np.float32)
            total = (piece.astype(np.longdouble) * (largest / np.float32(127)) + total).astype(np.float32)
        return total


class TestGroupwise(QuantizedFormat):
    names = ("int4", "int6")
    weights = GroupwiseWeights

    @staticmethod
    def number(data: bytes, name: str, k: int, row: int, i: int) -> float:
        u, scale, minimum, (first, unit) = group_number(data, int(name[3]), k, row, i, floats=2)
        return float(np.float32(u * scale) * first - np.float32(minimum) * unit)

    @staticmethod
    def rounded(rows: F32, name: str) -> F32:
        return quantize(rows, int(name[3])).matrix()


@given(**sizes, power=st.sampled_from([-20.0, 0.0, 30.0]), bits=st.sampled_from([4, 6]))
@relaxed
def test_groups_are_as_near_as_plain_rounding_allows_or_nearer(count: int, k: int, seed: int, power: float, bits: int):
    rows, most = rows_of_sizes(count, k, seed, power), 2**bits - 1
    found = quantize(rows, bits).matrix().astype(np.float64)
    spans = [np.maximum(part.max(axis=1), 0.0) - np.minimum(part.min(axis=1), 0.0) for part in by_group(rows)]
    depths = np.maximum(-rows.min(axis=1).astype(np.float64), 0)
    scale, step = np.max(spans, axis=0) / most / 255, depths / 255
    for part, got, span in zip(by_group(rows), by_group(found), spans, strict=True):
        # The whole range in even steps; its ends off by the rounding of the group's scale and minimum.
        worst = (span / most + scale) / 2 + step / 2 + most * scale
        assert np.all(((got - part) ** 2).mean(axis=1) <= worst**2 * 1.0001)


@given(**sizes, bits=st.sampled_from([4, 6]))
@relaxed
def test_the_search_never_loses_to_the_whole_range(count: int, k: int, seed: int, bits: int):
    rows, most = rows_of_sizes(count, k, seed), 2**bits - 1
    packed = quantize(rows, bits)
    found, scales, steps = packed.matrix(), packed.scales.astype(np.float64), packed.minima_units.astype(np.float64)
    for number, (part, got) in enumerate(zip(by_group(rows), by_group(found), strict=True)):
        high, low = np.maximum(part.max(axis=1), 0).astype(np.float64), np.minimum(part.min(axis=1), 0)
        multiple = np.clip(np.rint((high - low) / most / scales), 1, 255) * scales
        least = -np.clip(np.rint(-low / np.where(steps > 0, steps, 1)), 0, 255) * steps
        u = np.clip(np.rint((part - least[:, None]) / multiple[:, None]), 0, most)
        plain = ((u * multiple[:, None] + least[:, None] - part) ** 2).sum(axis=1)
        # Where float32 rounds a half the other way, a scale or minimum is one more or less; and float32 has 24 bits.
        slack = 1e-12 * np.maximum(high, -low) ** 2
        assert np.all(((got - part) ** 2).sum(axis=1) <= plain * 1.02 + slack), number


def test_the_search_gains_a_tenth_of_the_error_on_bell_shaped_weights():
    rows = np.random.default_rng(0).standard_normal((64, 768)).astype(np.float32)
    parts = rows.reshape(64, -1, 32)
    low = parts.min(axis=2, keepdims=True)
    step = (parts.max(axis=2, keepdims=True) - low) / 15
    plain = np.rint((parts - low) / step) * step + low
    error = ((quantize(rows, 4).matrix() - rows) ** 2).sum()
    assert error < 0.9 * ((plain - parts) ** 2).sum()


@given(groups=st.integers(1, 4), seed=st.integers(0, 99))
@relaxed
def test_weights_that_lie_on_sixteen_levels_come_back(groups: int, seed: int):
    rng = np.random.default_rng(seed)
    u = rng.integers(0, 16, (3, groups, 32))
    u[:, :, 0], u[:, :, 1] = 0, 15
    of_scale, of_step = rng.integers(100, 256, (3, groups, 1)), rng.integers(100, 256, (3, groups, 1))
    of_scale[:, 0] = of_step[:, 0] = 255
    # Ranges reach from below zero to above it: 255 steps are at most 15 * 100 scales.
    rows = (u * of_scale * 0.001 - of_step * 0.005).reshape(3, -1).astype(np.float32)
    np.testing.assert_allclose(quantize(rows, 4).matrix(), rows, rtol=0, atol=2e-6)


@pytest.mark.parametrize("tiny", [0.0, 1e-45, 1e-38, 9e-31])
def test_rows_too_small_to_scale_are_zeros(tiny: float):
    rows = np.full((2, 40), tiny, np.float32)
    rows[1] = 1
    packed = quantize(rows, 4)
    assert packed.scales[0] == packed.minima_units[0] == 0
    for part in (packed.u, packed.group_scales, packed.minima):
        assert not part[0].any()
    np.testing.assert_allclose(packed.matrix()[1], 1, rtol=1e-6)
