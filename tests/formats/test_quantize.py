"""What 8 and 4 bits keep of a row, against bounds and plain rounding in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bossa.formats.geometry import BLOCK
from bossa.formats.quantize import LARGEST, SMALLEST, grouped_rows, int8_rows, ladder_rows, table_rows

F32 = NDArray[np.float32]
sizes = {"count": st.integers(1, 5), "k": st.integers(1, 100), "seed": st.integers(0, 999)}
relaxed = settings(max_examples=100, deadline=None)


def make(count: int, k: int, seed: int, power: float = 0.0) -> F32:
    """Rows of very different sizes, with an outlier here and there."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, k)) * 10.0 ** (power + rng.uniform(-3, 3, (count, 1)))
    rows[rng.random((count, k)) < 0.02] *= 30
    return rows.astype(np.float32)


def by_group(rows: F32) -> list[F32]:
    return [rows[:, start : start + 32] for start in range(0, rows.shape[1], 32)]


@given(**sizes, power=st.sampled_from([-20.0, -10.0, 0.0, 30.0]))
@relaxed
def test_eight_bits_are_within_half_a_step_of_the_largest(count: int, k: int, seed: int, power: float):
    rows = make(count, k, seed, power)
    packed = table_rows(rows)
    steps = np.abs(rows).max(axis=1) / np.float64(127)
    np.testing.assert_allclose(packed.scales, steps, rtol=1e-6)
    assert np.all(np.abs(packed.q.astype(int)).max(axis=1) == 127)
    # Half a step, and the roundings of scale, quotient and product, of 2^-24 of the largest number each.
    assert np.all(np.abs(packed.matrix() - rows.astype(np.float64)) <= steps[:, None] * (0.5 + 127 * 2.0**-22))


@given(**sizes, power=st.sampled_from([-20.0, -10.0, 0.0, 30.0]))
@relaxed
def test_eight_bits_in_blocks_are_as_near_as_plain_rounding_allows_or_nearer(
    count: int, k: int, seed: int, power: float
):
    rows = make(count, k, seed, power)
    packed = int8_rows(rows)
    scales = np.abs(rows).max(axis=1) / np.float64(127 * 255)
    np.testing.assert_allclose(packed.scales, scales, rtol=1e-6)
    found = packed.matrix().astype(np.float64)
    for block, start in enumerate(range(0, k, BLOCK)):
        part = rows[:, start : start + BLOCK].astype(np.float64)
        steps = packed.block_scales[:, block] * scales
        # As fine as the block's largest number allows, up to the next whole multiple of the row's scale; a little finer
        # where that is nearer to most numbers.
        whole = np.abs(part).max(axis=1) / 127 * (1 + 1e-6) + scales
        assert np.all(steps <= whole)
        assert np.all(steps >= 0.94 * np.abs(part).max(axis=1) / 127 * (1 - 1e-6))
        misses = np.abs(found[:, start : start + BLOCK] - part)
        inside = np.abs(packed.q[:, start : start + BLOCK].astype(int)) < 127  # the others may be cut off
        assert np.all(misses[inside] <= np.broadcast_to(steps[:, None] * (0.5 + 127 * 2.0**-21), misses.shape)[inside])
        assert np.all((misses**2).mean(axis=1) <= (whole * (0.5 + 127 * 2.0**-21)) ** 2)


@given(**sizes, power=st.sampled_from([-20.0, 0.0, 30.0]), bits=st.sampled_from([4, 6]))
@relaxed
def test_ladders_are_as_near_as_the_whole_range_in_even_steps_or_nearer(
    count: int, k: int, seed: int, power: float, bits: int
):
    rows, most = make(count, k, seed, power), 2**bits - 1
    packed = ladder_rows(rows, bits)
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
def test_rungs_are_bytes(count: int, k: int, seed: int, bits: int):
    packed = ladder_rows(make(count, k, seed), bits)
    steps, minima = (np.repeat(part, 32, axis=1)[:, :k].astype(int) for part in (packed.steps, packed.minima))
    assert np.all(packed.u * steps + minima <= 255)
    assert packed.steps.max() * (2**bits - 1) <= 255
    assert packed.u.max() < 2**bits


def test_errors_of_a_ladder_cancel_out():
    """Activations have means: what a group's errors sum up to counts more than each of them."""
    rows = np.random.default_rng(0).standard_normal((64, 768)).astype(np.float32)
    miss = (ladder_rows(rows, 4).matrix() - rows).reshape(64, -1, 32)
    assert (miss.sum(axis=2) ** 2).mean() < 0.5 * (miss**2).sum(axis=2).mean()
    assert (miss**2).mean() < 1.2 * ((grouped_rows(rows, 4).matrix() - rows) ** 2).mean()


@given(**sizes, power=st.sampled_from([-20.0, 0.0, 30.0]), bits=st.sampled_from([4, 6]))
@relaxed
def test_groups_are_as_near_as_plain_rounding_allows_or_nearer(count: int, k: int, seed: int, power: float, bits: int):
    rows, most = make(count, k, seed, power), 2**bits - 1
    found = grouped_rows(rows, bits).matrix().astype(np.float64)
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
    rows, most = make(count, k, seed), 2**bits - 1
    packed = grouped_rows(rows, bits)
    found, scales, steps = packed.matrix(), packed.scales.astype(np.float64), packed.steps.astype(np.float64)
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
    error = ((grouped_rows(rows, 4).matrix() - rows) ** 2).sum()
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
    np.testing.assert_allclose(grouped_rows(rows, 4).matrix(), rows, rtol=0, atol=2e-6)


@pytest.mark.parametrize("tiny", [0.0, 1e-45, 1e-38, 9e-31])
def test_rows_too_small_to_scale_are_zeros(tiny: float):
    rows = np.full((2, 40), tiny, np.float32)
    rows[1] = 1
    eight, four, ladder = int8_rows(rows), grouped_rows(rows, 4), ladder_rows(rows, 4)
    assert eight.scales[0] == four.scales[0] == four.steps[0] == ladder.scales[0] == 0
    for part in (
        eight.q,
        eight.block_scales,
        four.u,
        four.group_scales,
        four.minima,
        ladder.u,
        ladder.steps,
        ladder.matrix(),
    ):
        assert not part[0].any()
    np.testing.assert_allclose(ladder.matrix()[1], 1, rtol=1e-6)
    np.testing.assert_allclose(eight.matrix()[1], 1, rtol=1e-6)
    np.testing.assert_allclose(four.matrix()[1], 1, rtol=1e-6)


@pytest.mark.parametrize("size", [float(SMALLEST) * 32, 1.0, float(LARGEST)])
def test_the_smallest_and_the_largest_numbers_keep_their_precision(size: float):
    pattern = np.array([[1, -1, 0.5, -0.25, 0.75] * 9], np.float32)
    rows = pattern * np.float32(size)
    for matrix, error in (
        (table_rows(rows).matrix(), 0.004),
        (int8_rows(rows).matrix(), 0.004),
        (grouped_rows(rows, 6).matrix(), 0.017),
        (grouped_rows(rows, 4).matrix(), 0.07),
        (ladder_rows(rows, 6).matrix(), 0.021),
        (ladder_rows(rows, 4).matrix(), 0.075),
    ):
        assert np.isfinite(matrix).all()
        assert np.abs(matrix / np.float32(size) - pattern).max() <= error


def test_no_rows_and_no_steps_are_nothing():
    for shape in ((0, 5), (3, 0), (0, 0)):
        rows = np.zeros(shape, np.float32)
        assert (
            table_rows(rows).matrix().shape
            == int8_rows(rows).matrix().shape
            == ladder_rows(rows, 4).matrix().shape
            == grouped_rows(rows, 4).matrix().shape
            == shape
        )
