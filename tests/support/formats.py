"""What is tested of every quantized format, for a class of its own in the format's test: its bytes and its linears.

A test file subclasses `QuantizedFormat`, says how one number is read from packed bytes as docs/pef.md has them, and
what a linear over random weights is, in exact integers but for the scales.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bossa.formats.registry import FORMATS
from bossa.weights import Slot, Source, bind
from bossa.weights import pack as packing
from support.arrays import Arrays, dequantize

Libraries = Callable[[str], list[ctypes.CDLL]]
F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
GROUP = 32
relaxed = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def rows_of_sizes(count: int, k: int, seed: int, power: float = 0.0) -> F32:
    """Rows of very different sizes, with an outlier here and there."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, k)) * 10.0 ** (power + rng.uniform(-3, 3, (count, 1)))
    rows[rng.random((count, k)) < 0.02] *= 30
    return rows.astype(np.float32)


def by_group(rows: F32) -> list[F32]:
    return [rows[:, start : start + GROUP] for start in range(0, rows.shape[1], GROUP)]


class Weights(ABC):
    """Random packed weights, or the largest there can be, and what they stand for.

    Attributes:
        packed: the bytes of all panels, aligned.
        panel_bytes: of one of them.
        scale: [16 P], that of each output.
        integers: [N, K], what an output's scale is multiplied by.
    """

    def __init__(self, name: str, n: int, k: int, seed: int, *, largest: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.name, self.n, self.k, self.largest = name, n, k, largest
        self.bits = FORMATS[name].bits
        self.panels = -(-n // 16)
        self.scale = self.floats()
        self.integers: I64 = np.zeros((n, k), np.int64)
        parts = self.parts()
        self.packed = aligned(np.concatenate(parts, axis=1))
        self.panel_bytes = sum(part.shape[1] for part in parts)

    @abstractmethod
    def parts(self) -> list[U8]:
        """The parts of the panels in order, [P, bytes] each; it sets ``integers``."""

    @abstractmethod
    def by_definition(self, x: F32) -> F32:
        """What a linear over these weights is."""

    @property
    def matrix(self) -> F32:
        """The weights [N, K]."""
        return self.integers.astype(np.float32) * self.scale[: self.n, None]

    def floats(self) -> F32:
        """A float an output, [16 P]."""
        made = np.zeros(self.panels * 16, np.float32)
        made[: self.n] = 1 if self.largest else self.rng.uniform(0.001, 0.1, self.n)
        return made

    def some(self, low: int, high: int, width: int, padded: int) -> I64:
        """Numbers [16 P, padded] from low up to high, zeros past N and ``width``."""
        numbers = np.zeros((self.panels * 16, padded), np.int64)
        numbers[: self.n, :width] = high - 1 if self.largest else self.rng.integers(low, high, (self.n, width))
        return numbers


def quads_of(numbers: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """Numbers [16 P, K] of 4 or 6 bits, K a multiple of 32, as the groups of their panels: [P, bytes]."""
    panels, groups = len(numbers) // 16, numbers.shape[1] // 32
    quads = numbers.reshape(panels, 16, groups, 8, 4).transpose(0, 2, 3, 1, 4)  # [P, G, 8, 16, 4]
    low = quads & 15
    body = low[:, :, 0::2] | low[:, :, 1::2] << 4
    if bits == 6:
        high = [sum(quads[:, :, 4 * half + i] >> 4 << 2 * i for i in range(4)) for half in (0, 1)]
        body = np.concatenate([body, np.stack(high, axis=2)], axis=2)
    return body.astype(np.uint8).reshape(panels, -1)


def heads_of(scales: NDArray[np.int64], minima: NDArray[np.int64]) -> NDArray[np.uint8]:
    """What groups have beside their numbers, [16 P, G] each, in the order of a panel: [P, bytes]."""
    panels, groups = len(scales) // 16, scales.shape[1]
    both = np.zeros((2, panels * 16, groups + groups % 2), np.int64)
    both[0, :, :groups], both[1, :, :groups] = scales, minima
    return both.reshape(2, panels, 16, -1).transpose(1, 3, 0, 2).reshape(panels, -1).astype(np.uint8)


def bytes_of(array: F32) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).view(np.uint8)


def aligned(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    room = np.zeros(data.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    room[start : start + data.nbytes] = data.reshape(-1)
    return room[start : start + data.nbytes]


def lane_sums(x: F32) -> F32:
    """The sum of each row as the kernels add it up: 64 sums side by side, then a tree."""
    lanes = np.zeros((len(x), 64), np.float32)
    for start in range(0, x.shape[1], 64):
        part = x[:, start : start + 64]
        lanes[:, : part.shape[1]] += part
    lanes = (lanes[:, :16] + lanes[:, 16:32]) + (lanes[:, 32:48] + lanes[:, 48:])
    for half in (8, 4, 2, 1):
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes


def inverse_of(most: int, of: F32) -> F32:
    return np.where(of > 0, np.float32(most) / np.where(of > 0, of, np.float32(1)), np.float32(0))


def largest_of(x: F32) -> F32:
    largest = np.abs(x).max(axis=1, keepdims=True)
    largest[largest < np.float32(1e-30)] = 0
    return largest


def group_number(
    data: bytes, bits: int, k: int, row: int, i: int, floats: int
) -> tuple[int, int, int, tuple[np.float32, ...]]:
    """A number in packed panels of groups, its group's scale and minimum, and its output's floats, one by one."""
    panel, lane = row // 16, row % 16
    groups = -(-k // GROUP)
    head = 64 * floats + -(-groups // 2) * 2 * 32
    group_bytes = 64 * bits
    start = panel * (head + group_bytes * groups)
    group, within = divmod(i, GROUP)
    at = start + head + group_bytes * group + lane * 4 + within % 4
    byte = data[at + within // 8 * 64]
    u = byte >> 4 if within % 8 >= 4 else byte & 15
    if bits == 6:
        u |= (data[at + 256 + within // 16 * 64] >> within % 16 // 4 * 2 & 3) << 4
    scale, minimum = (data[start + 64 * floats + 32 * group + 16 * part + lane] for part in (0, 1))
    of_output = np.frombuffer(data, np.float32)[start // 4 :]
    return u, scale, minimum, tuple(of_output[16 * part + lane] for part in range(floats))


def run(library: ctypes.CDLL, threads: int, x: F32, weights: Weights, group: int = 1) -> F32:
    """x [rows, ldx] may be wider than the weights [N, K]; the wider part must not be read."""
    rows, ldx = x.shape
    y = np.full((rows, weights.n), 77, np.float32)
    calls = np.zeros((rows, -(-weights.n // 16)), np.int32)
    p = [ctypes.c_void_p(a.ctypes.data) for a in (x, weights.packed, y, calls)]
    library.run_quantized(
        ctypes.c_char_p(weights.name.encode()),
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


class QuantizedFormat(ABC):
    """The tests; ``names`` are the formats, and ``weights`` makes random ones."""

    names: ClassVar[tuple[str, ...]]
    weights: ClassVar[type[Weights]]

    @staticmethod
    @abstractmethod
    def number(data: bytes, name: str, k: int, row: int, i: int) -> float:
        """Weight ``i`` of row ``row`` of a packed matrix."""

    @staticmethod
    @abstractmethod
    def rounded(rows: F32, name: str) -> F32:
        """The rows as the quantizer rounds them."""

    @given(
        heights=st.lists(st.integers(1, 40), min_size=1, max_size=3), k=st.integers(1, 140), data=st.data(),
        transpose=st.booleans(), interleave=st.booleans(), chunk=st.sampled_from([1, 1 << 18]),
    )  # fmt: skip
    @relaxed
    def test_panels_hold_every_number_in_its_place_and_zeros_beside(
        self, heights: list[int], k: int, data: Any, transpose: bool, interleave: bool, chunk: int
    ) -> None:
        name = data.draw(st.sampled_from(self.names))
        if interleave:
            heights = [32] * len(heights)
        rng = np.random.default_rng(k)
        values = [rng.standard_normal((height, k)).astype(np.float32) for height in heights]
        arrays = {f"t{i}": np.ascontiguousarray(value.T) if transpose else value for i, value in enumerate(values)}
        sources = tuple(Source((tensor,), array.shape, transpose) for tensor, array in arrays.items())
        slot = Slot("s", "panels", (sum(heights), k), name, sources, interleave)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packing, "CHUNK", chunk)
            packed = bind([slot], Arrays(arrays), threads=2).view("s")
        matrix = np.concatenate(values)
        if interleave:
            matrix = np.concatenate([part[start : start + 16] for start in (0, 16) for part in values])
        wanted = self.rounded(matrix, name)
        np.testing.assert_array_equal(dequantize(slot, packed), wanted, strict=True)
        assert packed.nbytes == slot.nbytes
        stored = packed.tobytes()
        for row, i in zip(rng.integers(0, len(matrix), 20), rng.integers(0, k, 20), strict=True):
            assert self.number(stored, name, k, int(row), int(i)) == wanted[row, i]
        for row in range(len(matrix), -(-len(matrix) // 16) * 16):
            assert all(self.number(stored, name, k, row, i) == 0 for i in range(k))

    @relaxed
    @given(
        data=st.data(), rows=st.integers(1, 40), n=st.integers(1, 400), k=st.integers(1, 600), extra=st.integers(0, 5),
        threads=st.sampled_from([1, 2, 3]), seed=st.integers(0, 99),
    )  # fmt: skip
    def test_every_build_computes_what_is_defined_to_the_bit(
        self, on_every_build: Libraries, data: Any, rows: int, n: int, k: int, extra: int, threads: int, seed: int
    ) -> None:
        name = data.draw(st.sampled_from(self.names))
        x, weights = activations(seed, rows, k, extra), self.weights(name, n, k, seed)
        expected = weights.by_definition(x[:, :k])
        for library in on_every_build("quantized"):
            np.testing.assert_array_equal(run(library, threads, x, weights), expected)

    @pytest.mark.parametrize("rows", [97, 200])
    def test_many_rows_have_the_bits_of_few(self, on_every_build: Libraries, name: str, rows: int) -> None:
        x, weights = activations(rows, rows, 300), self.weights(name, 500, 300, 1)
        for library in on_every_build("quantized"):
            together = run(library, 2, x, weights)
            np.testing.assert_array_equal(together, weights.by_definition(x))
            for first, last in ((0, 1), (1, 8), (8, 17), (17, 50)):
                np.testing.assert_array_equal(together[first:last], run(library, 3, x[first:last].copy(), weights))

    @relaxed
    @given(
        data=st.data(),
        rows=st.integers(1, 9),
        pairs=st.integers(1, 60),
        k=st.integers(1, 300),
        threads=st.integers(1, 5),
    )
    def test_pairs_of_panels_stay_together(
        self, on_every_build: Libraries, data: Any, rows: int, pairs: int, k: int, threads: int
    ) -> None:
        name = data.draw(st.sampled_from(self.names))
        x, weights = activations(k, rows, k), self.weights(name, 32 * pairs, k, rows)
        for library in on_every_build("quantized"):
            np.testing.assert_array_equal(run(library, threads, x, weights, group=2), weights.by_definition(x))

    def test_the_largest_numbers_do_not_overflow(self, on_every_build: Libraries, name: str) -> None:
        k = 5000
        weights = self.weights(name, 16, k, 0, largest=True)
        for value in (1.0, -1.0):
            x = np.full((7, k), value, np.float32)
            for library in on_every_build("quantized"):
                np.testing.assert_array_equal(run(library, 1, x, weights), weights.by_definition(x))

    def test_rows_of_like_numbers_and_of_few_large_ones_lie_in_one_tile(
        self, on_every_build: Libraries, name: str
    ) -> None:
        """How far integer sums may grow depends on a row: each kind is alone in a tile, and beside the others."""
        weights = self.weights(name, 64, 700, 5, largest=True)
        x = activations(5, 18, 700)
        x[0], x[7] = 1, -1
        x[[1, 8, 12, 13, 14, 15, 16, 17], ::90] *= 20
        for rows in (slice(0, 3), slice(1, 2), slice(2, 7), slice(3, 12), slice(12, 18), slice(0, 18)):
            for library in on_every_build("quantized"):
                y = run(library, 2, x[rows].copy(), weights)
                np.testing.assert_array_equal(y, weights.by_definition(x[rows]))

    def test_rows_of_zeros_give_zeros_and_tiny_ones_too(self, on_every_build: Libraries, name: str) -> None:
        weights = self.weights(name, 20, 70, 3)
        x = np.zeros((3, 70), np.float32)
        x[1] = 1e-40
        x[2] = 1e-20
        for library in on_every_build("quantized"):
            y = run(library, 1, x, weights)
            assert np.all(y[:2] == 0)
            np.testing.assert_array_equal(y, weights.by_definition(x))

    def test_a_row_with_nan_or_infinity_gives_nan_and_its_neighbours_do_not(
        self, on_every_build: Libraries, name: str
    ) -> None:
        weights = self.weights(name, 20, 70, 3)
        x = activations(0, 4, 70)
        x[1, 5], x[2, 69] = np.nan, np.inf
        for library in on_every_build("quantized"):
            y = run(library, 1, x, weights)
            assert np.isnan(y[1]).all() or not np.isfinite(y[1]).any()
            assert not np.isfinite(y[2]).any()
            assert np.isfinite(y[[0, 3]]).all()

    @pytest.mark.parametrize("k", [1, 30, 64, 133])
    def test_an_embedding_reads_the_rows_of_the_packed_matrix(
        self, on_every_build: Libraries, name: str, k: int
    ) -> None:
        weights = self.weights(name, 37, k, k)
        for library in on_every_build("quantized"):
            library.panel_bytes.restype = ctypes.c_size_t
            assert library.panel_bytes(name.encode(), k) == weights.panel_bytes
            for token in (0, 15, 16, 36):
                out = np.empty(k, np.float32)
                place = ctypes.c_void_p(weights.packed.ctypes.data)
                library.embed(name.encode(), place, k, token, ctypes.c_void_p(out.ctypes.data))
                np.testing.assert_array_equal(out, weights.matrix[token])
