"""The linear kernel against float64, and bit for bit against the definition of its sums."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Libraries = Callable[[str], list[ctypes.CDLL]]
F32 = NDArray[np.float32]
MAX_KC = 320
relaxed = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def pack(w: np.ndarray) -> np.ndarray:
    """[N, K] → [ceil(N/16)][K][16]"""
    n, k = w.shape
    padded = np.zeros((-(-n // 16) * 16, k), w.dtype)
    padded[:n] = w
    return np.ascontiguousarray(padded.reshape(-1, 16, k).transpose(0, 2, 1))


def run(library: ctypes.CDLL, threads: int, x: F32, w: np.ndarray, group: int = 1) -> F32:
    """x [rows, ldx] may be wider than w [N, K]; the wider part must not be read."""
    rows, ldx = x.shape
    n, k = w.shape
    panels = pack(w)
    y = np.full((rows, n), 77, np.float32)
    calls = np.zeros((rows, len(panels)), np.int32)
    p = [ctypes.c_void_p(a.ctypes.data) for a in (x, panels, y, calls)]
    library.run_linear(threads, rows, p[0], ctypes.c_size_t(ldx), p[1], n, k, group, p[2], p[3])
    assert np.all(calls == 1), "each piece goes to the epilogue once, in whole groups"
    return y


def make(seed: int, rows: int, n: int, k: int, extra: int = 0) -> tuple[F32, F32]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, k + extra)).astype(np.float32)
    x[:, k:] = np.nan
    return x, rng.normal(size=(n, k)).astype(np.float32)


def fma(a: F32, b: F32, c: F32) -> F32:
    """A float32 FMA: the product is exact in float64, and np.longdouble holds its sum well enough to round once."""
    return (a.astype(np.longdouble) * b.astype(np.longdouble) + c.astype(np.longdouble)).astype(np.float32)


def by_definition(x: F32, w: F32) -> F32:
    """Chains of FMAs within blocks of nearly the same length; block sums added in order."""
    total, kc = None, -(-w.shape[1] // -(-w.shape[1] // MAX_KC))
    for start in range(0, w.shape[1], kc):
        chain = np.zeros((len(x), len(w)), np.float32)
        for k in range(start, min(start + kc, w.shape[1])):
            chain = fma(x[:, k, None], w[None, :, k], chain)
        total = chain if total is None else total + chain
    assert total is not None
    return total


@relaxed
@given(
    rows=st.integers(1, 40), n=st.integers(1, 150), k=st.integers(1, 600), extra=st.integers(0, 5),
    threads=st.sampled_from([1, 2, 3, 5]), seed=st.integers(0, 99),
)  # fmt: skip
def test_products_are_near_float64_for_any_shape(
    on_every_build: Libraries, rows: int, n: int, k: int, extra: int, threads: int, seed: int
) -> None:
    x, w = make(seed, rows, n, k, extra)
    expected = x[:, :k].astype(np.float64) @ w.astype(np.float64).T
    scale = np.abs(x[:, :k]).astype(np.float64) @ np.abs(w).astype(np.float64).T
    portable, *others = (run(library, threads, x, w) for library in on_every_build("linear"))
    # A chain of at most 320 roundings of 2^-24 each, then the block sums.
    assert np.all(np.abs(portable - expected) <= 2**-24 * 324 * scale)
    for other in others:
        assert np.array_equal(other, portable)


@relaxed
@given(n=st.integers(1, 40), k=st.sampled_from([1, 5, 319, 320, 321, 576, 1000]), seed=st.integers(0, 99))
def test_each_output_is_the_documented_chain_of_fmas(on_every_build: Libraries, n: int, k: int, seed: int) -> None:
    x, w = make(seed, 2, n, k)
    expected = by_definition(x, w)
    for library in on_every_build("linear"):
        assert np.array_equal(run(library, 1, x, w), expected)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 31, 32, 33, 95, 97, 100, 200])
def test_a_row_gets_the_same_bits_in_any_batch_and_on_any_number_of_threads(
    rows: int, group: int, on_every_build: Libraries
) -> None:
    n, k = 32 * 7 * group, 300
    x, w = make(rows, 200, n, k)
    library = on_every_build("linear")[-1]
    alone = np.concatenate([run(library, 1, x[i : i + 1], w) for i in (0, rows // 2, rows - 1)])
    for threads in (1, 2, 3, 5):
        together = run(library, threads, x[:rows], w, group)
        assert np.array_equal(together[[0, rows // 2, rows - 1]], alone)
    assert np.array_equal(run(on_every_build("linear")[0], 2, x[:rows], w, group), together)


@pytest.mark.parametrize("workers", [2, 16, 64, 200])
@pytest.mark.parametrize(("rows", "panels", "group"), [(40, 48, 1), (512, 48, 1), (32, 192, 2), (1, 3142, 1)])
def test_many_workers_all_find_something_to_do(
    on_every_build: Libraries, workers: int, rows: int, panels: int, group: int
) -> None:
    for library in on_every_build("linear"):
        largest = ctypes.c_int()
        units = library.linear_units(rows, panels, group, workers, ctypes.byref(largest))
        pieces = panels // group * -(-rows // 96)
        assert units >= min(pieces, workers), "a worker would have nothing to do"
        assert largest.value % group == 0
