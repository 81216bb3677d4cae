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

Libraries = Callable[[str], list[ctypes.CDLL]]
F32 = NDArray[np.float32]
BLOCK = {8: 32, 6: 128, 4: 128}
"""Steps of k in one integer sum; but for 8 bits also those that share a scale of the activations."""
relaxed = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


class Weights:
    """Random packed weights, and what they stand for."""

    def __init__(self, bits: int, n: int, k: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.bits, self.n, self.k = bits, n, k
        panels = -(-n // 16)
        self.scale = np.zeros(panels * 16, np.float32)
        self.scale[:n] = rng.uniform(0.001, 0.1, n)
        if bits == 8:
            padded = -(-k // 4) * 4
            q = np.zeros((panels * 16, padded), np.int64)
            q[:n, :k] = rng.integers(-127, 128, (n, k))
            body = q.astype(np.int8).reshape(panels, 16, padded // 2, 2).transpose(0, 2, 1, 3).reshape(panels, -1)
            blocks = -(-k // BLOCK[8])
            scales = np.zeros((panels * 16, blocks), np.int64)
            scales[:n] = rng.integers(0, 256, (n, blocks))
            head = np.zeros((panels, -(-blocks // 4) * 64), np.uint8)
            head[:, : blocks * 16] = scales.reshape(panels, 16, blocks).transpose(0, 2, 1).reshape(panels, -1)
            parts = [_bytes(self.scale.reshape(panels, 16)), head, body.view(np.uint8)]
            self.steps = q[:n, :k]
            self.block_scales = scales[:n]
            self.integers = self.steps * np.repeat(self.block_scales, BLOCK[8], axis=1)[:, :k]
        else:
            groups = -(-k // 32)
            u = np.zeros((panels * 16, groups * 32), np.int64)
            u[:n, :k] = rng.integers(0, 2**bits, (n, k))
            of_groups = np.zeros((2, panels * 16, groups + groups % 2), np.int64)
            of_groups[:, :n, :groups] = rng.integers(0, 256, (2, n, groups))
            head = of_groups.reshape(2, panels, 16, -1).transpose(1, 3, 0, 2).reshape(panels, -1).astype(np.uint8)
            quads = u.reshape(panels, 16, groups, 8, 4).transpose(0, 2, 3, 1, 4)  # [P, G, 8, 16, 4]
            low = quads & 15
            body = low[:, :, 0::2] | low[:, :, 1::2] << 4
            if bits == 6:
                high = [sum(quads[:, :, 4 * half + i] >> 4 << 2 * i for i in range(4)) for half in (0, 1)]
                body = np.concatenate([body, np.stack(high, axis=2)], axis=2)
            self.step = np.zeros(panels * 16, np.float32)
            self.step[:n] = rng.uniform(0.001, 0.1, n)
            parts = [
                _bytes(self.scale.reshape(panels, 16)),
                _bytes(self.step.reshape(panels, 16)),
                head,
                body.astype(np.uint8).reshape(panels, -1),
            ]
            scales, self.minima = of_groups[:, :n, :groups]
            self.integers = u[:n, :k] * np.repeat(scales, 32, axis=1)[:, :k]
        self.packed = _aligned(np.concatenate(parts, axis=1))
        self.panel_bytes = sum(part.shape[1] for part in parts)

    @property
    def matrix(self) -> F32:
        w = self.integers.astype(np.float32) * self.scale[: self.n, None]
        if self.bits != 8:
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


def quantize(x: F32, bits: int) -> tuple[NDArray[np.int64], F32]:
    """The rows as integers, and each block's scale: one for a row with 8-bit weights, one a block with smaller ones."""
    most = 32767 if bits == 8 else 127
    step = x.shape[1] if bits == 8 else BLOCK[bits]
    q = np.zeros(x.shape, np.int64)
    scales = []
    for start in range(0, x.shape[1], step):
        part = x[:, start : start + step]
        largest = np.abs(part).max(axis=1, keepdims=True)
        largest[largest < np.float32(1e-30)] = 0
        with np.errstate(divide="ignore"):
            inverse = np.where(largest > 0, np.float32(most) / largest, np.float32(0))
        q[:, start : start + step] = np.rint(part * inverse)
        scales.append(largest / np.float32(most))
    return q, np.concatenate(scales, axis=1)


def by_definition(x: F32, weights: Weights) -> F32:
    """Exact integer sums of blocks, scaled by outputs and rows, and added in order by FMAs."""
    return int8_by_definition(x, weights) if weights.bits == 8 else grouped_by_definition(x, weights)


def int8_by_definition(x: F32, weights: Weights) -> F32:
    q, scales = quantize(x, 8)
    total = np.zeros((len(x), weights.n), np.float32)
    for number, start in enumerate(range(0, weights.k, BLOCK[8])):
        part = (q[:, start : start + BLOCK[8]] @ weights.steps[:, start : start + BLOCK[8]].T).astype(np.float32)
        total = (part.astype(np.longdouble) * weights.block_scales[:, number] + total).astype(np.float32)
    return total * (weights.scale[: weights.n] * scales)


def grouped_by_definition(x: F32, weights: Weights) -> F32:
    q, scales = quantize(x, weights.bits)
    total = np.zeros((len(x), weights.n), np.float32)
    for number, start in enumerate(range(0, weights.k, BLOCK[weights.bits])):
        part = q[:, start : start + BLOCK[weights.bits]]
        piece = (part @ weights.integers[:, start : start + BLOCK[weights.bits]].T).astype(np.float32)
        piece = piece * weights.scale[: weights.n]
        groups = np.add.reduceat(part, range(0, part.shape[1], 32), axis=1)
        less = groups @ weights.minima[:, start // 32 : start // 32 + groups.shape[1]].T
        piece = (piece - less.astype(np.longdouble) * weights.step[: weights.n]).astype(np.float32)
        total = (piece.astype(np.longdouble) * scales[:, [number]] + total).astype(np.float32)
    return total


def run(library: ctypes.CDLL, threads: int, x: F32, weights: Weights, group: int = 1) -> F32:
    """x [rows, ldx] may be wider than the weights [N, K]; the wider part must not be read."""
    rows, ldx = x.shape
    y = np.full((rows, weights.n), 77, np.float32)
    calls = np.zeros((rows, -(-weights.n // 16)), np.int32)
    p = [ctypes.c_void_p(a.ctypes.data) for a in (x, weights.packed, y, calls)]
    library.run_quantized(
        weights.bits, threads, rows, p[0], ctypes.c_size_t(ldx), p[1], weights.n, weights.k, group, p[2], p[3]
    )
    assert np.all(calls == 1), "each piece goes to the epilogue once, in whole groups"
    return y


def activations(seed: int, rows: int, k: int, extra: int = 0) -> F32:
    x = np.random.default_rng(seed).normal(size=(rows, k + extra)).astype(np.float32)
    x[:, k:] = np.nan
    return x


bits = st.sampled_from([8, 6, 4])


@relaxed
@given(
    bits=bits, rows=st.integers(1, 40), n=st.integers(1, 400), k=st.integers(1, 600), extra=st.integers(0, 5),
    threads=st.sampled_from([1, 2, 3]), seed=st.integers(0, 99),
)  # fmt: skip
def test_every_build_computes_what_is_defined_to_the_bit(
    on_every_build: Libraries, bits: int, rows: int, n: int, k: int, extra: int, threads: int, seed: int
) -> None:
    x, weights = activations(seed, rows, k, extra), Weights(bits, n, k, seed)
    expected = by_definition(x[:, :k], weights)
    for library in on_every_build("quantized"):
        np.testing.assert_array_equal(run(library, threads, x, weights), expected)


@pytest.mark.parametrize("bits", [8, 6, 4])
@pytest.mark.parametrize("rows", [97, 200])
def test_many_rows_have_the_bits_of_few(on_every_build: Libraries, bits: int, rows: int) -> None:
    x, weights = activations(rows, rows, 300), Weights(bits, 500, 300, 1)
    for library in on_every_build("quantized"):
        together = run(library, 2, x, weights)
        np.testing.assert_array_equal(together, by_definition(x, weights))
        for first, last in ((0, 1), (1, 8), (8, 17), (17, 50)):
            np.testing.assert_array_equal(together[first:last], run(library, 3, x[first:last].copy(), weights))


@relaxed
@given(bits=bits, rows=st.integers(1, 9), pairs=st.integers(1, 60), k=st.integers(1, 300), threads=st.integers(1, 5))
def test_pairs_of_panels_stay_together(
    on_every_build: Libraries, bits: int, rows: int, pairs: int, k: int, threads: int
) -> None:
    x, weights = activations(k, rows, k), Weights(bits, 32 * pairs, k, rows)
    for library in on_every_build("quantized"):
        np.testing.assert_array_equal(run(library, threads, x, weights, group=2), by_definition(x, weights))


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_the_largest_numbers_do_not_overflow(on_every_build: Libraries, bits: int) -> None:
    k = 5000
    weights = Weights(bits, 16, k, 0)
    weights.packed[:] = 0
    weights.packed[:64] = np.ones(16, np.float32).view(np.uint8)
    weights.scale[:] = 1
    if bits != 8:
        weights.packed[64:128] = weights.packed[:64]
        weights.step[:] = 1
    if bits == 8:
        head = 64 + -(-k // (4 * BLOCK[8])) * 64
        weights.packed[64:head] = 255
        weights.packed[head:] = np.int8(-127).view(np.uint8)
        weights.steps[:] = -127
        weights.block_scales[:] = 255
    else:
        groups = -(-k // 32)
        weights.packed[128 : 128 + groups * 32] = 255
        weights.packed[128 + -(-groups // 2) * 64 :] = 255
        weights.integers[:] = (2**bits - 1) * 255
        weights.minima[:] = 255
    for value in (1.0, -1.0):
        x = np.full((7, k), value, np.float32)
        for library in on_every_build("quantized"):
            np.testing.assert_array_equal(run(library, 1, x, weights), by_definition(x, weights))


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_rows_of_zeros_give_zeros_and_tiny_ones_too(on_every_build: Libraries, bits: int) -> None:
    weights = Weights(bits, 20, 70, 3)
    x = np.zeros((3, 70), np.float32)
    x[1] = 1e-40
    x[2] = 1e-20
    for library in on_every_build("quantized"):
        y = run(library, 1, x, weights)
        assert np.all(y[:2] == 0)
        np.testing.assert_array_equal(y, by_definition(x, weights))


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_a_row_with_nan_or_infinity_gives_nan_and_its_neighbours_do_not(on_every_build: Libraries, bits: int) -> None:
    weights = Weights(bits, 20, 70, 3)
    x = activations(0, 4, 70)
    x[1, 5], x[2, 69] = np.nan, np.inf
    for library in on_every_build("quantized"):
        y = run(library, 1, x, weights)
        assert np.isnan(y[1]).all() or not np.isfinite(y[1]).any()
        assert not np.isfinite(y[2]).any()
        assert np.isfinite(y[[0, 3]]).all()


@pytest.mark.parametrize("bits", [8, 6, 4])
@pytest.mark.parametrize("k", [1, 30, 64, 133])
def test_an_embedding_reads_the_rows_of_the_packed_matrix(on_every_build: Libraries, bits: int, k: int) -> None:
    weights = Weights(bits, 37, k, k)
    for library in on_every_build("quantized"):
        library.panel_bytes.restype = ctypes.c_size_t
        assert library.panel_bytes(bits, k) == weights.panel_bytes
        for token in (0, 15, 16, 36):
            out = np.empty(k, np.float32)
            library.embed(bits, ctypes.c_void_p(weights.packed.ctypes.data), k, token, ctypes.c_void_p(out.ctypes.data))
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
