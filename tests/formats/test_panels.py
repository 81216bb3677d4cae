"""The bytes of quantized slots, read one number at a time as docs/pef.md says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bossa.errors import WeightsError
from bossa.formats.precision import GROUP_BITS, LADDER_BITS, QUANTIZED, DType
from bossa.formats.quantize import grouped_rows, int8_rows, ladder_rows, table_rows
from bossa.weights import Slot, Source, bind
from bossa.weights import pack as packing
from bossa.weights.unpack import dequantize
from support.arrays import Arrays


def number(data: bytes, dtype: str, k: int, row: int, step: int) -> float:
    """One weight of a packed matrix."""
    panel, lane = row // 16, row % 16
    floats = np.frombuffer(data, np.float32)
    if dtype == "int8":
        head = 64 + -(-k // 128) * 64
        start = panel * (head + 32 * (2 * -(-k // 4)))
        q = int(np.frombuffer(data, np.int8)[start + head + step // 2 * 32 + lane * 2 + step % 2])
        return float(np.float32(q * data[start + 64 + step // 32 * 16 + lane]) * floats[start // 4 + lane])
    groups = -(-k // 32)
    of_lanes = 64 if dtype in LADDER_BITS else 128
    head = of_lanes + -(-groups // 2) * 2 * 32
    group_bytes = {"int6": 384, "int4": 256}[dtype.split("-")[0]]
    start = panel * (head + group_bytes * groups)
    group, within = divmod(step, 32)
    at = start + head + group_bytes * group + lane * 4 + within % 4
    byte = data[at + within // 8 * 64]
    u = byte >> 4 if within % 8 >= 4 else byte & 15
    if dtype.startswith("int6"):
        u |= (data[at + 256 + within // 16 * 64] >> within % 16 // 4 * 2 & 3) << 4
    scale, minimum = (data[start + of_lanes + 32 * group + 16 * part + lane] for part in (0, 1))
    if dtype in LADDER_BITS:
        return float(np.float32(u * scale + minimum - 128.0) * floats[start // 4 + lane])
    less = np.float32(minimum) * floats[start // 4 + 16 + lane]
    return float(np.float32(u * scale) * floats[start // 4 + lane] - less)


@given(
    heights=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    k=st.integers(1, 140),
    dtype=st.sampled_from(QUANTIZED),
    transpose=st.booleans(),
    interleave=st.booleans(),
    chunk=st.sampled_from([1, 1 << 18]),
)
@settings(max_examples=40, deadline=None)
def test_panels_hold_every_number_in_its_place_and_zeros_beside(
    heights: list[int], k: int, dtype: Any, transpose: bool, interleave: bool, chunk: int
):
    if interleave:
        heights = [32] * len(heights)
    rng = np.random.default_rng(k)
    values = [rng.standard_normal((height, k)).astype(np.float32) for height in heights]
    slot, arrays = joined_slot(values, dtype, transpose, interleave)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CHUNK", chunk)
        data = bind([slot], Arrays(arrays), threads=2).view("s")
    matrix = np.concatenate(values)
    if interleave:
        matrix = np.concatenate([part[start : start + 16] for start in (0, 16) for part in values])
    wanted = rounded(matrix, dtype)
    np.testing.assert_array_equal(dequantize(slot, data), wanted, strict=True)
    packed = data.tobytes()
    assert len(packed) == slot.nbytes
    for row, step in zip(rng.integers(0, len(matrix), 20), rng.integers(0, k, 20), strict=True):
        assert number(packed, dtype, k, int(row), int(step)) == wanted[row, step]
    for row in range(len(matrix), -(-len(matrix) // 16) * 16):
        assert all(number(packed, dtype, k, row, step) == 0 for step in range(k))


def rounded(matrix: NDArray[np.float32], dtype: DType) -> NDArray[np.float32]:
    if dtype == "int8":
        return int8_rows(matrix).matrix()
    if dtype in GROUP_BITS:
        return grouped_rows(matrix, GROUP_BITS[dtype]).matrix()
    return ladder_rows(matrix, LADDER_BITS[dtype]).matrix()


def joined_slot(
    values: list[NDArray[np.float32]], dtype: Any, transpose: bool = False, interleave: bool = False
) -> tuple[Slot, dict[str, NDArray[Any]]]:
    arrays = {f"t{i}": np.ascontiguousarray(value.T) if transpose else value for i, value in enumerate(values)}
    sources = tuple(Source((name,), array.shape, transpose) for name, array in arrays.items())
    return Slot("s", "panels", (sum(map(len, values)), values[0].shape[1]), dtype, sources, interleave), arrays


@pytest.mark.parametrize("height", [1, 16, 37])
def test_a_table_is_its_scales_then_its_rows(height: int):
    values = np.random.default_rng(0).standard_normal((height, 21)).astype(np.float32)
    slot = Slot("s", "rows", (height, 21), "int8", (Source(("w",), (height, 21)),))
    data = bind([slot], Arrays({"w": values})).view("s")
    packed = table_rows(values)
    start = -(-4 * height // 64) * 64
    assert data.nbytes == slot.nbytes == start + height * 21
    np.testing.assert_array_equal(data[: 4 * height].view(np.float32), packed.scales)
    np.testing.assert_array_equal(data[start:].view(np.int8).reshape(height, 21), packed.q)
    np.testing.assert_array_equal(dequantize(slot, data), packed.matrix(), strict=True)


@pytest.mark.parametrize("layout", ["panels", "rows", "flat"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_other_slots_are_read_back_as_they_were(layout: Any, dtype: Any):
    values = np.arange(35 * 6, dtype=np.float32).reshape(35, 6)  # whole numbers to 255 are bfloat16
    slot = Slot("s", layout, (35, 6), "fp32" if layout == "flat" else dtype, (Source(("w",), (35, 6)),))
    blob = bind([slot], Arrays({"w": values})).blob
    np.testing.assert_array_equal(dequantize(slot, np.frombuffer(blob, np.uint8)[: slot.nbytes]), values)


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_slot_of_few_bits_survives_json(dtype: Any):
    slot, _ = joined_slot([np.ones((32, 5), np.float32)] * 2, dtype, interleave=True)
    assert Slot.from_json(slot.to_json()) == slot


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_number_too_large_for_few_bits_is_refused_by_name(dtype: Any):
    for value in (2e37, -3e38):
        values = np.ones((20, 6), np.float32)
        values[17, 3] = value
        slot, arrays = joined_slot([values], dtype)
        with pytest.raises(WeightsError, match=f"'t0' has a number that is too large for {dtype}: compile with fp32"):
            bind([slot], Arrays(arrays))
