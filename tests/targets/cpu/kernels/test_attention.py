"""Paged attention against float64, and bit for bit between batches, chunks, threads and targets."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bossa.targets.cpu.emit.attention import head_bytes

Libraries = Callable[[str], list[ctypes.CDLL]]
F32 = NDArray[np.float32]
PAGE = 32
LAYERS = 2
BITS = {"fp32": 32, "bf16": 16, "int8": 8}
relaxed = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Shape:
    kv_heads: int = 2
    group: int = 1
    dim: int = 8
    v_dim: int = 8
    window: int = 0
    softcap: float = 0.0
    sinks: bool = False
    biased: bool = False
    hidden: tuple[int, int] = (0, 0)  # positions that get a bias of minus infinity
    kv: str = "fp32"

    @property
    def heads(self) -> int:
        return self.kv_heads * self.group

    @property
    def scale(self) -> float:
        return float(np.float32(self.dim**-0.5))

    def sink_logits(self) -> F32 | None:
        return np.linspace(-1, 2, self.heads).astype(np.float32) if self.sinks else None

    def bias(self, positions: int) -> F32 | None:
        """[heads, positions]"""
        if not self.biased:
            return None
        bias = np.random.default_rng(11).normal(size=(self.heads, 1400)).astype(np.float32)
        bias[:, slice(*self.hidden)] = -np.inf
        return bias[:, :positions].copy()


@dataclass(frozen=True)
class Sequence:
    """q [T, heads, dim], k [T, kv_heads, dim], v [T, kv_heads, v_dim]"""

    q: F32
    k: F32
    v: F32

    @staticmethod
    def make(shape: Shape, length: int, seed: int) -> Sequence:
        rng = np.random.default_rng(seed)

        def draw(heads: int, dim: int) -> F32:
            return rng.normal(size=(length, heads, dim)).astype(np.float32)

        return Sequence(
            2 * draw(shape.heads, shape.dim), draw(shape.kv_heads, shape.dim), draw(shape.kv_heads, shape.v_dim)
        )


def pointer(array: np.ndarray | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


class Pages:
    """KV memory of a few sequences, filled with NaN to begin with, and block tables that share no order with them."""

    def __init__(self, library: ctypes.CDLL, shape: Shape, lengths: list[int]) -> None:
        self.library, self.shape = library, shape
        library.layer_bytes.restype = ctypes.c_size_t
        self.layer = library.layer_bytes(BITS[shape.kv], shape.kv_heads, shape.dim, shape.v_dim)
        counts = [-(-length // PAGE) for length in lengths]
        self.kv = np.full((sum(counts) + 1, LAYERS * self.layer), 0xFF, np.uint8)  # NaN in fp32 and bf16
        order = np.random.default_rng(5).permutation(sum(counts)).astype(np.int32)
        self.tables = np.full((len(lengths), max(counts)), sum(counts), np.int32)
        for s, count in enumerate(counts):
            self.tables[s, :count], order = order[:count], order[count:]

    def step(self, chunks: list[tuple[int, Sequence, int, int]], threads: int = 1) -> list[F32]:
        """Runs rows first..last-1 of each given sequence (its index in the tables first) in one step."""
        shape = self.shape
        parts = [Sequence(s.q[a:b], s.k[a:b], s.v[a:b]) for _, s, a, b in chunks]
        q, k, v = (np.concatenate([getattr(p, name) for p in parts]) for name in "qkv")
        positions = np.concatenate([np.arange(a, b) for _, _, a, b in chunks]).astype(np.int32)
        starts = np.cumsum([0] + [b - a for _, _, a, b in chunks]).astype(np.int32)
        tables = np.ascontiguousarray(self.tables[[index for index, *_ in chunks]])
        out = np.full((len(q), shape.heads, shape.v_dim), 77, np.float32)
        sinks = shape.sink_logits()
        # As long as the longest sequence and no longer, so that reading past a row's own position is an error.
        seen = int(positions.max()) + 1
        bias = shape.bias(seen)
        self.library.run_attention(
            BITS[shape.kv], threads, shape.heads, shape.kv_heads, shape.dim, shape.v_dim, ctypes.c_float(shape.scale),
            shape.window, ctypes.c_float(shape.softcap), pointer(bias), seen, pointer(sinks),
            ctypes.c_size_t(self.kv.shape[1]),
            ctypes.c_size_t((LAYERS - 1) * self.layer), pointer(self.kv), len(q), len(chunks), tables.shape[1],
            pointer(positions), pointer(starts), pointer(tables), pointer(q), pointer(k), pointer(v), pointer(out),
        )  # fmt: skip
        return np.split(out, starts[1:-1])


def stored(x: F32, kv: str) -> NDArray[np.float64]:
    """Keys or values [T, heads, dim] as they come out of a page."""
    if kv == "bf16":
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)
    if kv == "int8":
        top = np.abs(x).max(-1, keepdims=True)
        levels = np.rint(x * (np.float32(127) / top)).clip(-127, 127)
        return levels.astype(np.float64) * (top / np.float32(127))
    return x.astype(np.float64)


def asked(shape: Shape, q: F32) -> NDArray[np.float64]:
    """Queries [T, heads, dim] as they meet the keys: those of int8 in levels of 16 bits."""
    if shape.kv != "int8":
        return q.astype(np.float64)
    step = np.abs(q).max(-1, keepdims=True).astype(np.float64) / min(32767, 16909320 // shape.dim)
    levels: NDArray[np.float64] = np.rint(q / step) * step
    return levels


def near(shape: Shape) -> dict[str, float]:
    """How near attention is to float64. Scores of a few units carry errors of a few 2^-24 of their size, which the
    exponential turns into relative ones. Over int8 values a weight is rounded to a 65,534th of the block's largest
    one, times the value's scale; 128 of them, times bytes of some 50, add up to a fiftieth of what rounding values
    costs, and to four times that at worst."""
    return {"rtol": 0, "atol": 6e-4 if shape.kv == "int8" else 2e-5}


def oracle(shape: Shape, s: Sequence) -> NDArray[np.float64]:
    length = len(s.q)
    kept = (asked(shape, s.q), stored(s.k, shape.kv), stored(s.v, shape.kv))
    q, k, v = (a.transpose(1, 0, 2) for a in kept)
    k, v = np.repeat(k, shape.group, axis=0), np.repeat(v, shape.group, axis=0)
    scores = q @ k.transpose(0, 2, 1) * shape.scale
    if shape.softcap:
        scores = shape.softcap * np.tanh(scores / shape.softcap)
    i, j = np.arange(length)[:, None], np.arange(length)[None, :]
    bias = shape.bias(length)
    if bias is not None:
        scores = scores + bias.astype(np.float64)[:, None, :]
    seen = (j <= i) & ((j > i - shape.window) if shape.window else True)
    scores = np.where(seen, scores, -np.inf)
    sinks = shape.sink_logits()
    extra = np.full((shape.heads, length, 1), -np.inf)
    if sinks is not None:
        extra = np.broadcast_to(sinks.astype(np.float64)[:, None, None], extra.shape)
    top = np.maximum(scores.max(-1, keepdims=True), extra)
    weights = np.exp(scores - top)
    share = weights / (weights.sum(-1, keepdims=True) + np.exp(extra - top))
    output: NDArray[np.float64] = (share @ v).transpose(1, 0, 2)
    return output


shapes = st.builds(
    Shape,
    kv_heads=st.integers(1, 3), group=st.sampled_from([1, 2, 3, 7]), dim=st.sampled_from([1, 8, 20, 33, 64, 80]),
    v_dim=st.sampled_from([1, 8, 20, 64, 96]), window=st.sampled_from([0, 0, 1, 5, 32, 50]),
    softcap=st.sampled_from([0.0, 0.0, 3.0]), sinks=st.booleans(), biased=st.booleans(),
    kv=st.sampled_from(["fp32", "fp32", "bf16", "int8"]),
)  # fmt: skip


@relaxed
@given(shape=shapes, length=st.integers(1, 150), seed=st.integers(0, 99), threads=st.sampled_from([1, 2, 3, 5]))
def test_attention_is_near_float64_for_any_shape_and_equal_on_every_target(
    on_every_build: Libraries, shape: Shape, length: int, seed: int, threads: int
) -> None:
    s = Sequence.make(shape, length, seed)
    portable, *others = (
        Pages(library, shape, [length]).step([(0, s, 0, length)], threads)[0] for library in on_every_build("attention")
    )
    np.testing.assert_allclose(portable, oracle(shape, s), **near(shape))
    for other in others:
        assert np.array_equal(other, portable)


@relaxed
@given(data=st.data(), shape=shapes, threads=st.sampled_from([1, 2, 3, 5]))
def test_rows_get_the_same_bits_in_any_chunks_and_company(
    on_every_build: Libraries, data: st.DataObject, shape: Shape, threads: int
) -> None:
    library = on_every_build("attention")[-1]
    lengths = data.draw(st.lists(st.integers(1, 100), min_size=1, max_size=3))
    sequences = [Sequence.make(shape, length, seed) for seed, length in enumerate(lengths)]
    alone = [Pages(library, shape, [len(s.q)]).step([(0, s, 0, len(s.q))])[0] for s in sequences]

    pages = Pages(library, shape, lengths)
    done = [0] * len(lengths)
    pieces: list[list[F32]] = [[] for _ in lengths]
    while any(d < length for d, length in zip(done, lengths, strict=True)):
        chunks = []
        for index, (s, length) in enumerate(zip(sequences, lengths, strict=True)):
            size = data.draw(st.sampled_from([0, 1, 1, 7, 32, 45]))
            end = min(length, done[index] + size)
            if end > done[index]:
                chunks.append((index, s, done[index], end))
                done[index] = end
        if chunks:
            for (index, *_), piece in zip(chunks, pages.step(chunks, threads), strict=True):
                pieces[index].append(piece)
    for together, single in zip(pieces, alone, strict=True):
        assert np.array_equal(np.concatenate(together), single)


@pytest.mark.parametrize("kv", BITS)
def test_heads_that_share_a_ticket_get_the_bits_of_one_sequence_alone(on_every_build: Libraries, kv: str) -> None:
    """Single rows of several sequences: a ticket is for a few of a sequence's kv heads, the last for what is left."""
    for shape in (Shape(kv_heads=12, dim=32, v_dim=32, kv=kv), Shape(kv_heads=5, group=65, window=40, kv=kv)):
        lengths = [1, 33, 128, 129, 140]
        sequences = [Sequence.make(shape, length, seed) for seed, length in enumerate(lengths)]
        for library in on_every_build("attention"):
            alone = [Pages(library, shape, [len(s.q)]).step([(0, s, 0, len(s.q))])[0][-1:] for s in sequences]
            for threads in (1, 2, 3):
                pages = Pages(library, shape, lengths)
                for index, s in enumerate(sequences[1:], 1):
                    pages.step([(index, s, 0, len(s.q) - 1)])
                together = pages.step([(i, s, len(s.q) - 1, len(s.q)) for i, s in enumerate(sequences)], threads)
                assert all(map(np.array_equal, together, alone))


def test_the_plan_makes_pages_as_large_as_the_kernels_need(on_every_build: Libraries) -> None:
    library = on_every_build("attention")[0]
    library.layer_bytes.restype = ctypes.c_size_t
    for kv, dim, v_dim in product(BITS, (1, 20, 33, 64), (1, 16, 40)):
        assert library.layer_bytes(BITS[kv], 3, dim, v_dim) == 3 * head_bytes(dim, v_dim, kv)


def test_common_head_sizes_are_right(on_every_build: Libraries) -> None:
    for kv, (dim, v_dim, group, kv_heads) in product(
        BITS, [(64, 64, 1, 12), (96, 96, 1, 2), (128, 128, 4, 2), (256, 256, 2, 1)]
    ):
        shape = Shape(kv_heads=kv_heads, group=group, dim=dim, v_dim=v_dim, kv=kv)
        s = Sequence.make(shape, 150, dim)
        for library in on_every_build("attention"):
            out = Pages(library, shape, [150]).step([(0, s, 0, 150)], 2)[0]
            np.testing.assert_allclose(out, oracle(shape, s), **near(shape))


def test_many_query_heads_share_one_kv_head(on_every_build: Libraries) -> None:
    for group, dim in [(71, 8), (65, 16), (12, 4096)]:
        shape = Shape(kv_heads=1, group=group, dim=dim, v_dim=16)
        s = Sequence.make(shape, 40, group)
        library = on_every_build("attention")[-1]
        whole = Pages(library, shape, [40]).step([(0, s, 0, 40)], 3)[0]
        np.testing.assert_allclose(whole, oracle(shape, s), rtol=0, atol=2e-4)


def test_what_later_tokens_hold_never_reaches_an_earlier_row(on_every_build: Libraries) -> None:
    for shape in (
        *(Shape(kv=kv) for kv in BITS), Shape(window=5, softcap=2.0, biased=True), Shape(group=3, sinks=True)
    ):  # fmt: skip
        clean = Sequence.make(shape, 80, 1)
        k, v = clean.k.copy(), clean.v.copy()
        k[41:], v[41:] = np.nan, np.inf
        for library in on_every_build("attention"):
            expected = Pages(library, shape, [80]).step([(0, clean, 0, 80)])[0]
            poisoned = Pages(library, shape, [80]).step([(0, replace(clean, k=k, v=v), 0, 80)])[0]
            assert np.array_equal(poisoned[:41], expected[:41])
            assert np.isnan(poisoned[41:]).all()


def test_a_window_forgets_what_lies_before_it(on_every_build: Libraries) -> None:
    shape = Shape(window=40)
    clean = Sequence.make(shape, 130, 1)
    k, v = clean.k.copy(), clean.v.copy()
    k[:50], v[:50] = np.nan, np.nan
    for library in on_every_build("attention"):
        expected = Pages(library, shape, [130]).step([(0, clean, 0, 130)])[0]
        poisoned = Pages(library, shape, [130]).step([(0, replace(clean, k=k, v=v), 0, 130)])[0]
        assert np.array_equal(poisoned[89:], expected[89:])
        assert np.isnan(poisoned[:89]).all()


def test_scores_far_apart_neither_overflow_nor_vanish(on_every_build: Libraries) -> None:
    shape = Shape(dim=8, v_dim=8)
    s = Sequence.make(shape, 100, 4)
    s = replace(s, q=s.q * 1e4)
    for library in on_every_build("attention"):
        out = Pages(library, shape, [100]).step([(0, s, 0, 100)])[0]
        # Scores near 1e5 keep errors near 1e-2, so the largest weights may be off by a few percent.
        np.testing.assert_allclose(out, oracle(shape, s), rtol=0, atol=0.1)


@pytest.mark.parametrize("kv", BITS)
@pytest.mark.parametrize("window", [0, 1100])
def test_long_sequences_get_the_same_bits_when_their_spans_are_shared_out(
    on_every_build: Libraries, window: int, kv: str
) -> None:
    """More than two spans of 1,024 positions, so few heads that decode steps share the spans among the threads."""
    for shape in (
        Shape(kv_heads=1, group=2, dim=16, v_dim=16, window=window, sinks=True, kv=kv),
        Shape(kv_heads=1, group=1, dim=16, v_dim=20, window=window, kv=kv),
    ):
        length, prefilled = 2200, 2100
        s = Sequence.make(shape, length, 7)
        libraries = on_every_build("attention")
        whole = Pages(libraries[-1], shape, [length]).step([(0, s, 0, length)])[0]
        np.testing.assert_allclose(whole, oracle(shape, s), **near(shape))
        assert np.array_equal(Pages(libraries[0], shape, [length]).step([(0, s, 0, length)], 2)[0], whole)
        for library in libraries:
            for threads in (1, 2, 5):
                pages = Pages(library, shape, [length])
                chunks = [(0, 900), (900, 1024), (1024, prefilled)]
                parts = [pages.step([(0, s, a, b)], threads)[0] for a, b in chunks]
                parts += [pages.step([(0, s, t, t + 1)], threads)[0] for t in range(prefilled, prefilled + 20)]
                parts.append(pages.step([(0, s, prefilled + 20, length)], threads)[0])
                assert np.array_equal(np.concatenate(parts), whole)


def test_spans_that_a_bias_hides_altogether_leave_no_trace(on_every_build: Libraries) -> None:
    for hidden in ((0, 1024), (1024, 1300), (100, 1200)):
        shape = Shape(kv_heads=1, dim=8, v_dim=8, biased=True, hidden=hidden)
        s = Sequence.make(shape, 1300, 3)
        with np.errstate(invalid="ignore"):  # rows before 1,200 may see nothing
            expected = oracle(shape, s)
        for library in on_every_build("attention"):
            out = Pages(library, shape, [1300]).step([(0, s, 0, 1300)], 2)[0]
            np.testing.assert_allclose(out[1200:], expected[1200:], rtol=0, atol=2e-5)


def test_int8_keys_and_values_of_zeros_and_of_tiny_numbers_are_right(on_every_build: Libraries) -> None:
    shape = Shape(kv="int8", dim=16, v_dim=16)
    s = Sequence.make(shape, 40, 2)
    k, v = s.k.copy(), s.v.copy()
    k[5], v[5], v[6], k[7] = 0, 0, 1e-42, 1e-42
    small = replace(s, k=k, v=v)
    for library in on_every_build("attention"):
        out = Pages(library, shape, [40]).step([(0, small, 0, 40)])[0]
        expected = oracle(replace(shape, kv="fp32"), small)
        assert np.isfinite(out).all()
        # A level is 1/127 of the largest of a head's 16 numbers, which are drawn from a standard normal.
        np.testing.assert_allclose(out, expected, rtol=0, atol=0.05)
