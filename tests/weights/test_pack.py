"""Packed slots against a plain reference, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bossa.errors import WeightsError
from bossa.weights import Slot, Source, bind
from bossa.weights import pack as packing
from support.arrays import Arrays, to_bf16


def joined(slot: Slot, tensors: list[NDArray[Any]]) -> NDArray[Any]:
    """The matrix of a slot, row by row as its docstring says."""
    if not slot.interleave:
        return np.concatenate(tensors)
    return np.concatenate([t[start : start + 16] for start in range(0, len(tensors[0]), 16) for t in tensors])


def panels(matrix: NDArray[Any]) -> NDArray[Any]:
    """[N, K] as [ceil(N/16)][K][16], one number at a time."""
    n, k = matrix.shape
    out = np.zeros((-(-n // 16), k, 16), matrix.dtype)
    for row in range(n):
        for column in range(k):
            out[row // 16, column, row % 16] = matrix[row, column]
    return out


@given(
    heights=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    k=st.integers(1, 20),
    transpose=st.booleans(),
    kind=st.sampled_from(["F32", "F16", "BF16", "F64"]),
    interleave=st.booleans(),
    chunk=st.sampled_from([1, 100, 1 << 18]),
)
@settings(max_examples=120, deadline=None)
def test_panels_hold_every_number_in_its_place(
    heights: list[int], k: int, transpose: bool, kind: str, interleave: bool, chunk: int
):
    if interleave:
        heights = [heights[0] * 16] * len(heights)
    generator = np.random.default_rng(k)
    values = [generator.standard_normal((height, k)).astype(np.float32) for height in heights]
    values = [widened(stored_as(value, kind)) for value in values]
    arrays = [stored_as(value.T if transpose else value, kind) for value in values]
    sources = tuple(Source((f"t{i}",), array.shape, transpose) for i, array in enumerate(arrays))
    slot = Slot("s", "panels", (sum(heights), k), "fp32", sources, interleave)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CHUNK", chunk)
        bound = bind([slot], Arrays({f"t{i}": array for i, array in enumerate(arrays)}), threads=2)
    np.testing.assert_array_equal(bound.view("s"), panels(joined(slot, values)), strict=True)


def stored_as(values: NDArray[np.float32], kind: str) -> NDArray[Any]:
    if kind == "BF16":
        return to_bf16(values)
    return values.astype({"F32": np.float32, "F16": np.float16, "F64": np.float64}[kind])


def widened(stored: NDArray[Any]) -> NDArray[np.float32]:
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def test_rows_and_flat_keep_their_order(checkpoint: Any):
    first = np.arange(35, dtype=np.float32).reshape(5, 7)
    second = -np.arange(21, dtype=np.float32).reshape(3, 7)
    bias, scale = np.arange(32, dtype=np.float32), np.float32(3).reshape(())
    slots = [
        Slot("rows", "rows", (8, 7), "fp32", (Source(("a",), (5, 7)), Source(("b",), (7, 3), True))),
        Slot("bias", "flat", (64,), "fp32", (Source(("c",), (32,)), Source(("d",), (32,))), True),
        Slot("plain", "flat", (8, 7), "fp32", (Source(("a",), (5, 7)), Source(("b",), (7, 3), True))),
        Slot("scalar", "flat", (), "fp32", (Source(("e",), ()),)),
    ]
    bound = bind(slots, checkpoint({"a": first, "b": second.T.copy(), "c": bias, "d": -bias, "e": scale}))
    table = np.concatenate([first, second])
    np.testing.assert_array_equal(bound.view("rows"), table, strict=True)
    np.testing.assert_array_equal(bound.view("plain"), table)
    wanted = np.concatenate([bias[:16], -bias[:16], bias[16:], -bias[16:]])
    np.testing.assert_array_equal(bound.view("bias"), wanted)
    assert bound.view("scalar") == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["F32", "BF16", "F16"])
def test_a_number_that_is_none_is_refused_by_the_tensor_s_name(bad: float, kind: str, checkpoint: Any):
    values = np.ones((40, 6), np.float32)
    values[37, 2] = bad
    slot = Slot("s", "panels", (40, 6), "fp32", (Source(("h.0.w",), (40, 6)),))
    with pytest.raises(WeightsError, match=r"tensor 'h\.0\.w' has NaN or infinite numbers"):
        bind([slot], checkpoint({"h.0.w": stored_as(values, kind)}))


def test_large_numbers_whose_sum_overflows_are_not_taken_for_infinity(checkpoint: Any):
    values = np.full((16, 4), 3e38, np.float32)
    slot = Slot("s", "panels", (16, 4), "fp32", (Source(("w",), (16, 4)),))
    assert bind([slot], checkpoint({"w": values})).view("s").max() == np.float32(3e38)


def test_integers_are_not_weights(checkpoint: Any):
    slot = Slot("s", "flat", (2,), "fp32", (Source(("w",), (2,)),))
    with pytest.raises(WeightsError, match="'w' is stored as I64"):
        bind([slot], checkpoint({"w": np.zeros(2, np.int64)}))
