"""int4-a8, int6-a8 and their like of 16 bits: what two levels keep of a row, their bytes, and their linears."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bossa.formats import groupwise
from bossa.formats.progressive import quantize
from support.formats import (
    GROUP,
    QuantizedFormat,
    Weights,
    by_group,
    bytes_of,
    group_number,
    heads_of,
    inverse_of,
    lane_sums,
    largest_of,
    quads_of,
    rows_of_sizes,
)

F32 = NDArray[np.float32]
sizes = {"count": st.integers(1, 5), "k": st.integers(1, 100), "seed": st.integers(0, 999)}
relaxed = settings(max_examples=100, deadline=None)


class ProgressiveWeights(Weights):
    def parts(self) -> list[NDArray[np.uint8]]:
        n, k, groups, most = self.n, self.k, -(-self.k // GROUP), 2**self.bits - 1
        scales = self.some(0, 255 // most + 1, groups, groups)
        minima = 0 * scales if self.largest else self.rng.integers(0, 256 - most * scales)
        u = self.some(0, 2**self.bits, k, groups * GROUP)
        if self.largest:
            u[:n, :k] = 0
        q = u * np.repeat(scales, GROUP, axis=1) + np.repeat(minima, GROUP, axis=1)
        self.integers = q[:n, :k] - 128
        return [bytes_of(self.scale.reshape(self.panels, 16)), heads_of(scales, minima), quads_of(u, self.bits)]

    def by_definition(self, x: F32) -> F32:
        """Rows of 16 or of 8 bits, whose magnitudes sum up to less than 2^24, and one exact sum."""
        largest = largest_of(x)
        inverse = np.minimum(
            inverse_of(127 if self.name.endswith("-a8") else 32512, largest),
            inverse_of(16_600_000 - x.shape[1] // 2, np.where(largest > 0, lane_sums(np.abs(x)), 0)),
        )
        q = np.rint(x * inverse).astype(np.int64)
        sums = q @ self.integers.T
        assert np.abs(sums).max(initial=0) < 2**31
        return sums.astype(np.float32) * (self.scale[: self.n] * inverse_of(1, inverse))


class TestProgressive(QuantizedFormat):
    names = ("int4-a8", "int6-a8", "int4-a16", "int6-a16")
    weights = ProgressiveWeights

    @staticmethod
    def number(data: bytes, name: str, k: int, row: int, i: int) -> float:
        u, scale, minimum, (first,) = group_number(data, int(name[3]), k, row, i, floats=1)
        return float(np.float32(u * scale + minimum - 128.0) * first)

    @staticmethod
    def rounded(rows: F32, name: str) -> F32:
        return quantize(rows, int(name[3])).matrix()


@given(**sizes, power=st.sampled_from([-20.0, 0.0, 30.0]), bits=st.sampled_from([4, 6]))
@relaxed
def test_groups_are_as_near_as_the_whole_range_in_even_steps_or_nearer(
    count: int, k: int, seed: int, power: float, bits: int
):
    rows, most = rows_of_sizes(count, k, seed, power), 2**bits - 1
    packed = quantize(rows, bits)
    found = packed.matrix().astype(np.float64)
    unit = np.abs(rows).max(axis=1).astype(np.float64) / 127
    np.testing.assert_allclose(packed.scales, unit, rtol=1e-6)
    for number, (part, got) in enumerate(zip(by_group(rows), by_group(found), strict=True)):
        high, low = part.max(axis=1) / unit, part.min(axis=1) / unit
        step = np.clip(np.ceil((high - low) / most), 1, 255 // most)
        # Half a step; half a unit for the minimum; and, where no step is wide enough, what is cut off at the ends.
        worst = (step / 2 + 0.5 + np.maximum(high - low - most * step, 0)) * unit
        misses = np.abs(got - part)
        assert np.all((misses**2).mean(axis=1) <= worst**2 * 3.0001), number  # with the weight of the bias


@given(**sizes, bits=st.sampled_from([4, 6]))
@relaxed
def test_the_first_level_has_eight_bits(count: int, k: int, seed: int, bits: int):
    packed = quantize(rows_of_sizes(count, k, seed), bits)
    scales, minima = (np.repeat(part, 32, axis=1)[:, :k].astype(int) for part in (packed.group_scales, packed.minima))
    assert np.all(packed.u * scales + minima <= 255)
    assert packed.group_scales.max() * (2**bits - 1) <= 255
    assert packed.u.max() < 2**bits


def test_errors_of_a_group_cancel_out():
    """Activations have means: what a group's errors sum up to counts more than each of them."""
    rows = np.random.default_rng(0).standard_normal((64, 768)).astype(np.float32)
    miss = (quantize(rows, 4).matrix() - rows).reshape(64, -1, 32)
    assert (miss.sum(axis=2) ** 2).mean() < 0.5 * (miss**2).sum(axis=2).mean()
    assert (miss**2).mean() < 1.2 * ((groupwise.quantize(rows, 4).matrix() - rows) ** 2).mean()


@pytest.mark.parametrize("tiny", [0.0, 1e-45, 1e-38, 9e-31])
def test_rows_too_small_to_scale_are_zeros(tiny: float):
    rows = np.full((2, 40), tiny, np.float32)
    rows[1] = 1
    packed = quantize(rows, 4)
    assert packed.scales[0] == 0
    for part in (packed.u, packed.group_scales, packed.matrix()):
        assert not part[0].any()
    np.testing.assert_allclose(packed.matrix()[1], 1, rtol=1e-6)
