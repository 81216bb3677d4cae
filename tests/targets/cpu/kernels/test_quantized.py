"""Linears over weights of 8, 6 and 4 bits against their definition in NumPy, and bit for bit between builds."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bossa.formats.precision import DTYPES, GROUP_BITS, LADDER_BITS, QUANTIZED, DType

Libraries = Callable[[str], list[ctypes.CDLL]]
F32 = NDArray[np.float32]
BLOCK = 128
"""Steps of k in one integer sum where activations are bytes, each block with a scale of its own."""
OF_INT8 = 32
"""Steps of k in one integer sum in int8."""
relaxed = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def _quads(numbers: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """Numbers [16 P, K] of 4 or 6 bits, K a multiple of 32, as the groups of their panels: [P, bytes]."""
    panels, groups = len(numbers) // 16, numbers.shape[1] // 32
    quads = numbers.reshape(panels, 16, groups, 8, 4).transpose(0, 2, 3, 1, 4)  # [P, G, 8, 16, 4]
    low = quads & 15
    body = low[:, :, 0::2] | low[:, :, 1::2] << 4
    if bits == 6:
        high = [sum(quads[:, :, 4 * half + i] >> 4 << 2 * i for i in range(4)) for half in (0, 1)]
        body = np.concatenate([body, np.stack(high, axis=2)], axis=2)
    return body.astype(np.uint8).reshape(panels, -1)


def _heads(scales: NDArray[np.int64], minima: NDArray[np.int64]) -> NDArray[np.uint8]:
    """What groups have beside their numbers, [16 P, G] each, in the order of a panel: [P, bytes]."""
    panels, groups = len(scales) // 16, scales.shape[1]
    both = np.zeros((2, panels * 16, groups + groups % 2), np.int64)
    both[0, :, :groups], both[1, :, :groups] = scales, minima
    return both.reshape(2, panels, 16, -1).transpose(1, 3, 0, 2).reshape(panels, -1).astype(np.uint8)


class Weights:
    """Random packed weights, or the largest there can be, and what they stand for."""

    def __init__(self, dtype: DType, n: int, k: int, seed: int, *, largest: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.dtype, self.n, self.k = dtype, n, k
        self.ladder = dtype in LADDER_BITS
        panels = -(-n // 16)
        self.scale = np.zeros(panels * 16, np.float32)
        self.scale[:n] = 1 if largest else rng.uniform(0.001, 0.1, n)
        parts = [_bytes(self.scale.reshape(panels, 16))]

        def some(low: int, high: int, width: int, padded: int) -> NDArray[np.int64]:
            numbers = np.zeros((panels * 16, padded), np.int64)
            numbers[:n, :width] = high - 1 if largest else rng.integers(low, high, (n, width))
            return numbers

        groups = -(-k // 32)
        if dtype == "int8":
            blocks = -(-k // OF_INT8)
            q = some(-127, 128, k, -(-k // 4) * 4)
            scales = some(0, 256, blocks, blocks)
            head = np.zeros((panels, -(-blocks // 4) * 64), np.uint8)
            head[:, : blocks * 16] = scales.reshape(panels, 16, blocks).transpose(0, 2, 1).reshape(panels, -1)
            pairs = q.astype(np.int8).reshape(panels, 16, -1, 2).transpose(0, 2, 1, 3).reshape(panels, -1)
            parts += [head, pairs.view(np.uint8)]
            self.steps, self.block_scales = q[:n, :k], scales[:n]
            self.integers = self.steps * np.repeat(self.block_scales, OF_INT8, axis=1)[:, :k]
        elif self.ladder:
            bits = LADDER_BITS[dtype]
            most = 2**bits - 1
            steps = some(0, 255 // most + 1, groups, groups)
            minima = 0 * steps if largest else rng.integers(0, 256 - most * steps)
            u = some(0, 2**bits, k, groups * 32)
            if largest:
                u[:n, :k] = 0
            parts += [_heads(steps, minima), _quads(u, bits)]
            bytes_of = u * np.repeat(steps, 32, axis=1) + np.repeat(minima, 32, axis=1)
            self.integers = bytes_of[:n, :k] - 128
        else:
            bits = GROUP_BITS[dtype]
            u = some(0, 2**bits, k, groups * 32)
            scales, minima = (some(0, 256, groups, groups) for _ in range(2))
            self.step = np.zeros(panels * 16, np.float32)
            self.step[:n] = 1 if largest else rng.uniform(0.001, 0.1, n)
            parts += [_bytes(self.step.reshape(panels, 16)), _heads(scales, minima), _quads(u, bits)]
            self.minima = minima[:n]
            self.integers = u[:n, :k] * np.repeat(scales[:n], 32, axis=1)[:, :k]
        self.packed = _aligned(np.concatenate(parts, axis=1))
        self.panel_bytes = sum(part.shape[1] for part in parts)

    @property
    def matrix(self) -> F32:
        w = self.integers.astype(np.float32) * self.scale[: self.n, None]
        if self.dtype in GROUP_BITS:
            less = self.minima.astype(np.float32) * self.step[: self.n, None]
            w = w - np.repeat(less, 32, axis=1)[:, : self.k]
        return w


def _bytes(array: F32) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).view(np.uint8)


def _aligned(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    room = np.zeros(data.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    room[start : start + data.nbytes] = data.reshape(-1)
    return room[start : start + data.nbytes]


def _lane_sums(x: F32) -> F32:
    """The sum of each row as the kernels add it up: 64 sums side by side, then a tree."""
    lanes = np.zeros((len(x), 64), np.float32)
    for start in range(0, x.shape[1], 64):
        part = x[:, start : start + 64]
        lanes[:, : part.shape[1]] += part
    lanes = (lanes[:, :16] + lanes[:, 16:32]) + (lanes[:, 32:48] + lanes[:, 48:])
    for half in (8, 4, 2, 1):
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes


def _inverse(most: int, of: F32) -> F32:
    return np.where(of > 0, np.float32(most) / np.where(of > 0, of, np.float32(1)), np.float32(0))


def _largest(x: F32) -> F32:
    largest = np.abs(x).max(axis=1, keepdims=True)
    largest[largest < np.float32(1e-30)] = 0
    return largest


def by_definition(x: F32, weights: Weights) -> F32:
    """What a linear is, in exact integers but for the scales."""
    if weights.dtype == "int8":
        return of_words_in_blocks(x, weights)
    return of_words(x, weights) if weights.ladder else of_bytes(x, weights)


def of_words_in_blocks(x: F32, weights: Weights) -> F32:
    """Rows of 16 bits; the sums of blocks are scaled and added in order by FMAs."""
    largest = _largest(x)
    q = np.rint(x * _inverse(32767, largest)).astype(np.int64)
    total = np.zeros((len(x), weights.n), np.float32)
    for number, start in enumerate(range(0, weights.k, OF_INT8)):
        part = q[:, start : start + OF_INT8] @ weights.steps[:, start : start + OF_INT8].T
        scales = weights.block_scales[:, number]
        total = (part.astype(np.float32).astype(np.longdouble) * scales + total).astype(np.float32)
    return total * (weights.scale[: weights.n] * (largest / np.float32(32767)))


def of_words(x: F32, weights: Weights) -> F32:
    """Rows of 16 or of 8 bits, whose magnitudes sum up to less than 2^24, and one exact sum."""
    largest = _largest(x)
    inverse = np.minimum(
        _inverse(127 if weights.dtype.endswith("-a8") else 32512, largest),
        _inverse(16_600_000 - x.shape[1] // 2, np.where(largest > 0, _lane_sums(np.abs(x)), 0)),
    )
    q = np.rint(x * inverse).astype(np.int64)
    sums = q @ weights.integers.T
    assert np.abs(sums).max(initial=0) < 2**31
    return sums.astype(np.float32) * (weights.scale[: weights.n] * _inverse(1, inverse))


def of_bytes(x: F32, weights: Weights) -> F32:
    """Blocks of bytes with a scale each; their sums are scaled by outputs and blocks and added in order by FMAs."""
    total = np.zeros((len(x), weights.n), np.float32)
    for start in range(0, weights.k, BLOCK):
        part = x[:, start : start + BLOCK]
        largest = _largest(part)
        q = np.rint(part * _inverse(127, largest)).astype(np.int64)
        piece = (q @ weights.integers[:, start : start + BLOCK].T).astype(np.float32)
        piece = piece * weights.scale[: weights.n]
        groups = np.add.reduceat(q, range(0, q.shape[1], 32), axis=1)
        less = groups @ weights.minima[:, start // 32 : start // 32 + groups.shape[1]].T
        piece = (piece - less.astype(np.longdouble) * weights.step[: weights.n]).astype(np.float32)
        total = (piece.astype(np.longdouble) * (largest / np.float32(127)) + total).astype(np.float32)
    return total


def run(library: ctypes.CDLL, threads: int, x: F32, weights: Weights, group: int = 1) -> F32:
    """x [rows, ldx] may be wider than the weights [N, K]; the wider part must not be read."""
    rows, ldx = x.shape
    y = np.full((rows, weights.n), 77, np.float32)
    calls = np.zeros((rows, -(-weights.n // 16)), np.int32)
    p = [ctypes.c_void_p(a.ctypes.data) for a in (x, weights.packed, y, calls)]
    library.run_quantized(
        DTYPES.index(weights.dtype),
        threads,
        rows,
        p[0],
        ctypes.c_size_t(ldx),
        p[1],
        weights.n,
        weights.k,
        group,
        p[2],
        p[3],
    )
    assert np.all(calls == 1), "each piece goes to the epilogue once, in whole groups"
    return y


def activations(seed: int, rows: int, k: int, extra: int = 0) -> F32:
    x = np.random.default_rng(seed).normal(size=(rows, k + extra)).astype(np.float32)
    x[:, k:] = np.nan
    return x


dtypes = st.sampled_from(QUANTIZED)


@relaxed
@given(
    dtype=dtypes, rows=st.integers(1, 40), n=st.integers(1, 400), k=st.integers(1, 600), extra=st.integers(0, 5),
    threads=st.sampled_from([1, 2, 3]), seed=st.integers(0, 99),
)  # fmt: skip
def test_every_build_computes_what_is_defined_to_the_bit(
    on_every_build: Libraries, dtype: DType, rows: int, n: int, k: int, extra: int, threads: int, seed: int
) -> None:
    x, weights = activations(seed, rows, k, extra), Weights(dtype, n, k, seed)
    expected = by_definition(x[:, :k], weights)
    for library in on_every_build("quantized"):
        np.testing.assert_array_equal(run(library, threads, x, weights), expected)


@pytest.mark.parametrize("dtype", QUANTIZED)
@pytest.mark.parametrize("rows", [97, 200])
def test_many_rows_have_the_bits_of_few(on_every_build: Libraries, dtype: DType, rows: int) -> None:
    x, weights = activations(rows, rows, 300), Weights(dtype, 500, 300, 1)
    for library in on_every_build("quantized"):
        together = run(library, 2, x, weights)
        np.testing.assert_array_equal(together, by_definition(x, weights))
        for first, last in ((0, 1), (1, 8), (8, 17), (17, 50)):
            np.testing.assert_array_equal(together[first:last], run(library, 3, x[first:last].copy(), weights))


@relaxed
@given(dtype=dtypes, rows=st.integers(1, 9), pairs=st.integers(1, 60), k=st.integers(1, 300), threads=st.integers(1, 5))
def test_pairs_of_panels_stay_together(
    on_every_build: Libraries, dtype: DType, rows: int, pairs: int, k: int, threads: int
) -> None:
    x, weights = activations(k, rows, k), Weights(dtype, 32 * pairs, k, rows)
    for library in on_every_build("quantized"):
        np.testing.assert_array_equal(run(library, threads, x, weights, group=2), by_definition(x, weights))


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_the_largest_numbers_do_not_overflow(on_every_build: Libraries, dtype: DType) -> None:
    k = 5000
    weights = Weights(dtype, 16, k, 0, largest=True)
    for value in (1.0, -1.0):
        x = np.full((7, k), value, np.float32)
        for library in on_every_build("quantized"):
            np.testing.assert_array_equal(run(library, 1, x, weights), by_definition(x, weights))


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_rows_of_like_numbers_and_of_few_large_ones_lie_in_one_tile(on_every_build: Libraries, dtype: DType) -> None:
    """How far integer sums may grow depends on a row: each kind is alone in a tile, and beside the others."""
    weights = Weights(dtype, 64, 700, 5, largest=True)
    x = activations(5, 18, 700)
    x[0], x[7] = 1, -1
    x[[1, 8, 12, 13, 14, 15, 16, 17], ::90] *= 20
    for rows in (slice(0, 3), slice(1, 2), slice(2, 7), slice(3, 12), slice(12, 18), slice(0, 18)):
        for library in on_every_build("quantized"):
            y = run(library, 2, x[rows].copy(), weights)
            np.testing.assert_array_equal(y, by_definition(x[rows], weights))


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_rows_of_zeros_give_zeros_and_tiny_ones_too(on_every_build: Libraries, dtype: DType) -> None:
    weights = Weights(dtype, 20, 70, 3)
    x = np.zeros((3, 70), np.float32)
    x[1] = 1e-40
    x[2] = 1e-20
    for library in on_every_build("quantized"):
        y = run(library, 1, x, weights)
        assert np.all(y[:2] == 0)
        np.testing.assert_array_equal(y, by_definition(x, weights))


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_row_with_nan_or_infinity_gives_nan_and_its_neighbours_do_not(
    on_every_build: Libraries, dtype: DType
) -> None:
    weights = Weights(dtype, 20, 70, 3)
    x = activations(0, 4, 70)
    x[1, 5], x[2, 69] = np.nan, np.inf
    for library in on_every_build("quantized"):
        y = run(library, 1, x, weights)
        assert np.isnan(y[1]).all() or not np.isfinite(y[1]).any()
        assert not np.isfinite(y[2]).any()
        assert np.isfinite(y[[0, 3]]).all()


@pytest.mark.parametrize("dtype", QUANTIZED)
@pytest.mark.parametrize("k", [1, 30, 64, 133])
def test_an_embedding_reads_the_rows_of_the_packed_matrix(on_every_build: Libraries, dtype: DType, k: int) -> None:
    weights, number = Weights(dtype, 37, k, k), DTYPES.index(dtype)
    for library in on_every_build("quantized"):
        library.panel_bytes.restype = ctypes.c_size_t
        assert library.panel_bytes(number, k) == weights.panel_bytes
        for token in (0, 15, 16, 36):
            out = np.empty(k, np.float32)
            library.embed(
                number, ctypes.c_void_p(weights.packed.ctypes.data), k, token, ctypes.c_void_p(out.ctypes.data)
            )
            np.testing.assert_array_equal(out, weights.matrix[token])


def test_an_embedding_reads_the_rows_of_a_quantized_table(on_every_build: Libraries) -> None:
    rng = np.random.default_rng(0)
    v, d = 21, 37
    scales: F32 = rng.uniform(0.01, 1, v).astype(np.float32)
    q: NDArray[Any] = rng.integers(-127, 128, (v, d)).astype(np.int8)
    room = np.zeros(-(-4 * v // 64) * 64, np.uint8)
    room[: 4 * v] = scales.view(np.uint8)
    table = _aligned(np.concatenate([room, q.view(np.uint8).reshape(-1)]))
    for library in on_every_build("quantized"):
        for token in (0, 20):
            out = np.full(d, 9, np.float32)
            library.embed_row(ctypes.c_void_p(table.ctypes.data), v, d, token, ctypes.c_void_p(out.ctypes.data))
            np.testing.assert_array_equal(out, q[token].astype(np.float32) * scales[token])
