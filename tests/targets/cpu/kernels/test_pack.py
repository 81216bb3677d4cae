"""The native packer against the NumPy that defines it, bit for bit; and what both say of each format."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bossa.errors import WeightsError
from bossa.formats.registry import FORMATS
from bossa.targets.cpu.packing import LibraryPacker
from bossa.weights import Slot, Source, bind
from bossa.weights import pack as packing
from bossa.weights.packer import Packer
from support.arrays import Arrays, dequantize, to_bf16

Libraries = Callable[[str], list[ctypes.CDLL]]
TABLES = [name for name in FORMATS if "rows" in FORMATS[name].layouts]
QUANTIZED = [name for name in FORMATS if FORMATS[name].quantized]
relaxed = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def packers(on_every_build: Libraries) -> list[Packer]:
    return [LibraryPacker(library) for library in on_every_build("pack")]


def stored_as(values: NDArray[np.float32], kind: str) -> NDArray[Any]:
    if kind == "BF16":
        return to_bf16(values)
    if kind == "F64":
        return values.astype(np.float64)
    with np.errstate(over="ignore"):
        return np.clip(values, -6e4, 6e4).astype(np.float16) if kind == "F16" else values


def numbers(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Rows of all sizes, denormals and zeros among them; rows of one sign; rows of one number."""
    rows = rng.standard_normal(shape) * 10.0 ** rng.choice([-42.0, -30.0, -20.0, -5.0, 0.0, 3.0, 30.0], (shape[0], 1))
    kinds = rng.integers(0, 8, shape[0])
    rows[kinds == 0] = 0
    rows[kinds == 1] = np.abs(rows[kinds == 1])
    rows[kinds == 2] = rows[kinds == 2][:, :1]
    rows[rng.random(shape) < 0.05] = 0
    return rows.astype(np.float32)


@relaxed
@given(
    heights=st.lists(st.integers(1, 70), min_size=1, max_size=3), k=st.integers(1, 140),
    kind=st.sampled_from(["F32", "BF16", "F16"]), dtype=st.sampled_from(list(FORMATS)), transpose=st.booleans(),
    interleave=st.booleans(), chunk=st.sampled_from([1, 1 << 18]), seed=st.integers(0, 999),
)  # fmt: skip
def test_every_build_packs_the_bits_of_numpy(
    packers: list[Packer], heights: list[int], k: int, kind: str, dtype: Any, transpose: bool, interleave: bool,
    chunk: int, seed: int,
) -> None:  # fmt: skip
    if interleave:
        heights = [-(-heights[0] // 16) * 16] * len(heights)
    rng = np.random.default_rng(seed)
    values = [stored_as(numbers(rng, (height, k)), kind) for height in heights]
    arrays = {f"t{i}": np.ascontiguousarray(value.T) if transpose else value for i, value in enumerate(values)}
    sources = tuple(Source((name,), array.shape, transpose) for name, array in arrays.items())
    slot = Slot("s", "panels", (sum(heights), k), dtype, sources, interleave)
    wanted = bytes(bind([slot], Arrays(arrays)).blob)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CHUNK", chunk)
        for packer in packers:
            assert bytes(bind([slot], Arrays(arrays), packer=packer, threads=2).blob) == wanted


@relaxed
@given(
    heights=st.lists(st.integers(1, 70), min_size=1, max_size=3), k=st.integers(1, 140),
    kind=st.sampled_from(["F32", "BF16", "F16", "F64"]), dtype=st.sampled_from(TABLES), transpose=st.booleans(),
    chunk=st.sampled_from([1, 1 << 18]), seed=st.integers(0, 999),
)  # fmt: skip
def test_every_build_packs_the_tables_of_numpy(
    packers: list[Packer], heights: list[int], k: int, kind: str, dtype: Any, transpose: bool, chunk: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = [stored_as(numbers(rng, (height, k)), kind) for height in heights]
    arrays = {f"t{i}": np.ascontiguousarray(value.T) if transpose else value for i, value in enumerate(values)}
    sources = tuple(Source((name,), array.shape, transpose) for name, array in arrays.items())
    slot = Slot("s", "rows", (sum(heights), k), dtype, sources)
    wanted = bytes(bind([slot], Arrays(arrays)).blob)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CHUNK", chunk)
        patch.setattr(FORMATS[dtype].__class__, "put_table", None)  # which native code has no need of
        for packer in packers:
            assert bytes(bind([slot], Arrays(arrays), packer=packer, threads=2).blob) == wanted


def test_every_half_precision_number_is_widened(packers: list[Packer]) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    halves = halves[(halves & 0x7C00) != 0x7C00].view(np.float16).reshape(-1, 8)
    slot = Slot("s", "panels", halves.shape, "fp32", (Source(("w",), halves.shape),))
    for packer in packers:
        blob = np.frombuffer(bind([slot], Arrays({"w": halves}), packer=packer).blob, np.uint8)
        bits = dequantize(slot, blob).view(np.uint32)
        np.testing.assert_array_equal(bits, halves.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("kind", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_refused_by_the_tensor_s_name(
    packers: list[Packer], dtype: Any, kind: str, bad: float
) -> None:
    for layout in sorted({"panels", "rows"} & set(FORMATS[dtype].layouts)):
        for row, step in ((0, 0), (37, 66), (39, 3)):
            values = np.ones((40, 67), np.float32)
            values[row, step] = bad
            array = to_bf16(values) if kind == "BF16" else values.astype({"F32": np.float32, "F16": np.float16}[kind])
            slot = Slot("s", layout, (40, 67), dtype, (Source(("h.0.w",), (40, 67)),))
            for packer in packers:
                with pytest.raises(WeightsError, match=r"tensor 'h\.0\.w' has NaN or infinite numbers"):
                    bind([slot], Arrays({"h.0.w": array}), packer=packer)


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_number_too_large_is_refused_by_the_tensor_s_name(packers: list[Packer], dtype: Any) -> None:
    values = np.ones((20, 5), np.float32)
    values[18, 4] = -np.finfo(np.float32).max
    for layout in sorted({"panels", "rows"} & set(FORMATS[dtype].layouts)):
        slot = Slot("s", layout, (20, 5), dtype, (Source(("w",), (20, 5)),))
        for packer in packers:
            with pytest.raises(WeightsError, match=f"'w' has a number that is too large for {dtype}:"):
                bind([slot], Arrays({"w": values}), packer=packer)


def test_what_a_packer_does_not_read_is_widened_for_it(packers: list[Packer]) -> None:
    values = np.random.default_rng(0).standard_normal((20, 9))
    slot = Slot("s", "panels", (20, 9), "int4", (Source(("w",), (20, 9)),))
    wanted = bytes(bind([slot], Arrays({"w": values})).blob)
    assert bytes(bind([slot], Arrays({"w": values}), packer=packers[-1]).blob) == wanted


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("k", [1, 33, 64, 133])
def test_the_kernels_read_the_numbers_that_were_packed(on_every_build: Libraries, dtype: Any, k: int) -> None:
    values = np.random.default_rng(k).standard_normal((37, k)).astype(np.float32)
    slot = Slot("s", "panels", (37, k), dtype, (Source(("w",), (37, k)),))
    with bind([slot], Arrays({"w": values})) as bound:
        wanted = dequantize(slot, np.frombuffer(bound.blob, np.uint8)[: slot.nbytes])
        for library in on_every_build("quantized"):
            for token in (0, 15, 16, 36):
                out = np.empty(k, np.float32)
                library.embed(
                    ctypes.c_char_p(dtype.encode()),
                    ctypes.c_void_p(bound.addresses()[0]),
                    k,
                    token,
                    ctypes.c_void_p(out.ctypes.data),
                )
                np.testing.assert_array_equal(out, wanted[token])


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_a_counterpart_in_c(on_every_build: Libraries, name: str) -> None:
    """Its panels are as large there, and a row of activations takes no more than there is room for."""
    stored = FORMATS[name]
    for library in on_every_build("quantized"):
        library.panel_bytes.restype = library.row_bytes.restype = ctypes.c_size_t
        for k in (1, 31, 32, 33, 64, 100, 128, 129, 767, 768, 4096):
            assert library.panel_bytes(name.encode(), k) == stored.panel_bytes(k)
            assert bool(library.row_bytes(name.encode(), k)) == stored.quantized
            assert library.row_bytes(name.encode(), k) <= stored.activation_bytes(k)


def test_what_a_program_does_not_pack_is_packed_by_numpy(packers: list[Packer]) -> None:
    class OfOthers(Packer):
        def pack(self, rows: Any, stored: str, dtype: str, *place: Any) -> Any:
            return packers[0].pack(rows, stored, "another", *place)

        def pack_table(self, rows: Any, stored: str, dtype: str, *place: Any) -> Any:
            return packers[0].pack_table(rows, stored, "another", *place)

    values = np.random.default_rng(0).standard_normal((20, 9)).astype(np.float32)
    for layout in ("panels", "rows"):
        slot = Slot("s", layout, (20, 9), "int8", (Source(("w",), (20, 9)),))
        wanted = bytes(bind([slot], Arrays({"w": values})).blob)
        assert bytes(bind([slot], Arrays({"w": values}), packer=OfOthers()).blob) == wanted
