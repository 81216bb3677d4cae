"""int8: what 8 bits keep of a row, its bytes, and its linears."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bossa.formats.format import LARGEST
from bossa.formats.int8 import BLOCK, quantize, quantize_rows
from bossa.formats.rounding import SMALLEST
from bossa.weights import Slot, Source, bind
from support.arrays import Arrays, dequantize
from support.formats import Libraries, QuantizedFormat, Weights, aligned, inverse_of, largest_of, rows_of_sizes

F32 = NDArray[np.float32]
sizes = {"count": st.integers(1, 5), "k": st.integers(1, 100), "seed": st.integers(0, 999)}
relaxed = settings(max_examples=100, deadline=None)


class Int8Weights(Weights):
    def parts(self) -> list[NDArray[np.uint8]]:
        panels, k, blocks = self.panels, self.k, -(-self.k // BLOCK)
        q = self.some(-127, 128, k, -(-k // 4) * 4)
        scales = self.some(0, 256, blocks, blocks)
        head = np.zeros((panels, -(-blocks // 4) * 64), np.uint8)
        head[:, : blocks * 16] = scales.reshape(panels, 16, blocks).transpose(0, 2, 1).reshape(panels, -1)
        pairs = q.astype(np.int8).reshape(panels, 16, -1, 2).transpose(0, 2, 1, 3).reshape(panels, -1)
        self.q, self.block_scales = q[: self.n, :k], scales[: self.n]
        self.integers = self.q * np.repeat(self.block_scales, BLOCK, axis=1)[:, :k]
        return [self.scale.reshape(panels, 16).view(np.uint8), head, pairs.view(np.uint8)]

    def by_definition(self, x: F32) -> F32:
        """Rows of 16 bits; the sums of blocks are scaled and added in order by FMAs."""
        largest = largest_of(x)
        words = np.rint(x * inverse_of(32767, largest)).astype(np.int64)
        total = np.zeros((len(x), self.n), np.float32)
        for number, start in enumerate(range(0, self.k, BLOCK)):
            part = words[:, start : start + BLOCK] @ self.q[:, start : start + BLOCK].T
            scales = self.block_scales[:, number]
            total = (part.astype(np.float32).astype(np.longdouble) * scales + total).astype(np.float32)
        return total * (self.scale[: self.n] * (largest / np.float32(32767)))


class TestInt8(QuantizedFormat):
    names = ("int8",)
    weights = Int8Weights

    @staticmethod
    def number(data: bytes, name: str, k: int, row: int, i: int) -> float:
        panel, lane = row // 16, row % 16
        head = 64 + -(-k // 128) * 64
        start = panel * (head + 32 * (2 * -(-k // 4)))
        q = int(np.frombuffer(data, np.int8)[start + head + i // 2 * 32 + lane * 2 + i % 2])
        scale = np.frombuffer(data, np.float32)[start // 4 + lane]
        return float(np.float32(q * data[start + 64 + i // 32 * 16 + lane]) * scale)

    @staticmethod
    def rounded(rows: F32, name: str) -> F32:
        return quantize(rows).matrix()


@given(**sizes, power=st.sampled_from([-20.0, -10.0, 0.0, 30.0]))
@relaxed
def test_eight_bits_are_within_half_a_step_of_the_largest(count: int, k: int, seed: int, power: float):
    rows = rows_of_sizes(count, k, seed, power)
    packed = quantize_rows(rows)
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
    rows = rows_of_sizes(count, k, seed, power)
    packed = quantize(rows)
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


@pytest.mark.parametrize("tiny", [0.0, 1e-45, 1e-38, 9e-31])
def test_rows_too_small_to_scale_are_zeros(tiny: float):
    rows = np.full((2, 40), tiny, np.float32)
    rows[1] = 1
    packed = quantize(rows)
    assert packed.scales[0] == 0
    assert not packed.q[0].any()
    assert not packed.block_scales[0].any()
    np.testing.assert_allclose(packed.matrix()[1], 1, rtol=1e-6)


@pytest.mark.parametrize("size", [SMALLEST * 32, 1.0, LARGEST])
def test_the_smallest_and_the_largest_numbers_keep_their_precision(size: float):
    pattern = np.array([[1, -1, 0.5, -0.25, 0.75] * 9], np.float32)
    rows = pattern * np.float32(size)
    for matrix in (quantize_rows(rows).matrix(), quantize(rows).matrix()):
        assert np.isfinite(matrix).all()
        assert np.abs(matrix / np.float32(size) - pattern).max() <= 0.004


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_no_rows_and_no_numbers_are_nothing(shape: tuple[int, int]):
    rows = np.zeros(shape, np.float32)
    assert quantize_rows(rows).matrix().shape == quantize(rows).matrix().shape == shape


@pytest.mark.parametrize("height", [1, 16, 37])
def test_a_table_is_its_scales_then_its_rows(height: int):
    values = np.random.default_rng(0).standard_normal((height, 21)).astype(np.float32)
    slot = Slot("s", "rows", (height, 21), "int8", (Source(("w",), (height, 21)),))
    data = bind([slot], Arrays({"w": values})).view("s")
    packed = quantize_rows(values)
    start = -(-4 * height // 64) * 64
    assert data.nbytes == slot.nbytes == start + height * 21
    np.testing.assert_array_equal(data[: 4 * height].view(np.float32), packed.scales)
    np.testing.assert_array_equal(data[start:].view(np.int8).reshape(height, 21), packed.q)
    np.testing.assert_array_equal(dequantize(slot, data), packed.matrix(), strict=True)


def test_an_embedding_reads_the_rows_of_a_quantized_table(on_every_build: Libraries) -> None:
    rng = np.random.default_rng(0)
    v, d = 21, 37
    scales: F32 = rng.uniform(0.01, 1, v).astype(np.float32)
    q: NDArray[np.int8] = rng.integers(-127, 128, (v, d)).astype(np.int8)
    room = np.zeros(-(-4 * v // 64) * 64, np.uint8)
    room[: 4 * v] = scales.view(np.uint8)
    table = aligned(np.concatenate([room, q.view(np.uint8).reshape(-1)]))
    for library in on_every_build("quantized"):
        for token in (0, 20):
            out = np.full(d, 9, np.float32)
            library.embed_row(ctypes.c_void_p(table.ctypes.data), v, d, token, ctypes.c_void_p(out.ctypes.data))
            np.testing.assert_array_equal(out, q[token].astype(np.float32) * scales[token])
