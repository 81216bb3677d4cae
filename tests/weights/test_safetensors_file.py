"""Safetensors files: the library's own files are read in place, hostile ones are refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from bossa.errors import WeightsError
from bossa.weights import open_weights, safetensors_file
from support.smaps import of_map

ARRAYS: dict[str, Any] = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4, dtype=np.float16),
    "c": np.zeros((0, 3), np.float32),
    "d": np.array(1.5),
    "e": np.arange(3, dtype=np.int64),
}


def test_the_library_s_own_files_are_read(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    save_file(ARRAYS, path, metadata={"format": "pt"})
    source = open_weights(path)
    assert sorted(source.names()) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        assert source.shape(name) == array.shape
        np.testing.assert_array_equal(source.read(name), array, strict=True)
    np.testing.assert_array_equal(source.float32("b"), ARRAYS["b"].astype(np.float32), strict=True)
    assert source.float32("d") == 1.5
    assert source.describe() == str(path)
    with pytest.raises(WeightsError, match="'e' is stored as I64, which is not read"):
        source.float32("e")


def test_bf16_written_by_torch_is_read_without_torch(tmp_path: Path):
    import torch
    from safetensors.torch import save_file as save_torch

    values = torch.randn(5, 7).to(torch.bfloat16)
    save_torch({"w": values}, tmp_path / "x.safetensors")
    source = open_weights(tmp_path / "x.safetensors")
    assert (source.dtype("w"), source.read("w").dtype) == ("BF16", np.uint16)
    np.testing.assert_array_equal(source.float32("w"), values.float().numpy(), strict=True)


def test_tensors_are_mapped_and_cannot_be_written(tmp_path: Path):
    save_file(ARRAYS, tmp_path / "x.safetensors")
    array = open_weights(tmp_path / "x.safetensors").read("a")
    assert not array.flags.writeable
    assert not array.flags.owndata


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="the memory of maps is read as Linux shows it")
def test_released_tensors_take_no_memory_and_can_be_read_again(tmp_path: Path):
    arrays = {name: np.arange(1 << 20, dtype=np.float32) for name in ("a", "b")} | {"c": np.ones(3, np.float32)}
    save_file(arrays, tmp_path / "x.safetensors")
    source = open_weights(tmp_path / "x.safetensors")
    read = {name: source.read(name) for name in arrays}
    for name in arrays:
        np.testing.assert_array_equal(read[name], arrays[name])
    assert of_map(read["a"], "Rss") > 8 << 10
    for name in arrays:
        source.release(name)
    assert of_map(read["a"], "Rss") < 1 << 10
    for name in arrays:
        np.testing.assert_array_equal(read[name], arrays[name])


def file(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(begin: int, end: int, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "is empty"),
        (b"1234", "is too short"),
        (file({}, size=2**63), "its header claims"),
        (file({}, size=100), "its header claims"),
        (file(b"[]"), "not a JSON object"),
        (file(b"{]"), "not valid JSON"),
        (file(b"\xff\xfe"), "not valid JSON"),
        (file(b"[" * 200_000), "not valid JSON"),
        (file(b'{"a": 1, "a": 2}'), "not valid JSON"),
        (file({"a": 3}), "'a' has no description"),
        (file({"a": entry(0, 4, dtype="Q4")}, bytes(4)), "'a' as Q4, which is not read"),
        (file({"a": entry(0, 4, shape=[-1])}, bytes(4)), "'a' has no valid shape"),
        (file({"a": entry(0, 4, shape=[1] * 40)}, bytes(4)), "'a' has no valid shape"),
        (file({"a": entry(0, 4, shape=[1.0])}, bytes(4)), "'a' has no valid shape"),
        (file({"a": entry(0, 4, shape=None)}, bytes(4)), "'a' has no valid shape"),
        (file({"a": entry(0, 4, shape=[2**40, 2**40])}, bytes(4)), "'a' has 4 bytes"),
        (file({"a": entry(4, 0)}, bytes(4)), "'a' has -4 bytes"),
        (file({"a": entry(0, 2**62 - 1)}, bytes(4)), "'a' has"),
        (file({"a": entry(1, 5)}, bytes(5)), "bytes lie between them"),
        (file({"a": entry(0, 4), "b": entry(0, 4)}, bytes(8)), "overlaps another"),
        (file({"a": entry(0, 4)}, bytes(3)), "cut short"),
        (file({"__metadata__": [1]}), "its __metadata__ does not map text to text"),
        (file({"__metadata__": {"a": 1}}), "its __metadata__ does not map text to text"),
        (file({"\x1b[2J\ud800": entry(0, 4)}, bytes(5)), "cut short"),
        (file({"\x1b[2J\ud800": 1}), r"tensor '\\x1b\[2J\\ud800' has no description"),
        (file(b'{"a": ' + b"9" * 5000 + b"}"), "not valid JSON"),
        (file({"a": entry(0, 4, dtype={"x": 1})}, bytes(4)), "which is not read"),
        (file({"a": entry(0, 4, dtype="F4")}, bytes(4)), "'a' as F4, which is not read: pass the unquantized model"),
        (file({"a": entry(0, 4)}, bytes(5)), "cut short or has bytes at its end"),
    ],
)
def test_a_hostile_header_is_refused(tmp_path: Path, raw: bytes, reason: str):
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw)
    with pytest.raises(WeightsError, match=reason) as caught:
        open_weights(path).names()
    assert str(caught.value).isprintable()


def test_a_header_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as out:
        out.write(struct.pack("<Q", 100_000_000))
        out.truncate(100_000_008)
    with pytest.raises(WeightsError, match="has a header of 100,000,000 bytes, and no more than 33,554,432 are read"):
        open_weights(path).names()


@pytest.mark.parametrize("whole", [True, False])
def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool):
    monkeypatch.setattr(safetensors_file, "MAX_TENSORS", 4)
    save_file(
        ARRAYS if whole else {name: ARRAYS[name] for name in "abc"}, tmp_path / "model-00001-of-00002.safetensors"
    )
    save_file({name: ARRAYS[name] for name in "de"}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(WeightsError, match="has 5 tensors, and no more than 4 are read"):
        open_weights(tmp_path).names()


CUTS = st.tuples(st.floats(0, 1), st.binary(max_size=10), st.integers(0, 10))


@given(cuts=st.lists(CUTS, min_size=1, max_size=4))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_file_is_refused_in_a_line_or_gives_what_it_holds(
    cuts: list[tuple[float, bytes, int]], tmp_path: Path
):
    raw = save(ARRAYS)
    for where, change, cut in cuts:
        at = int(where * len(raw))
        raw = raw[:at] + change + raw[at + cut :]
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw)
    source = open_weights(path)
    refusal = ""
    names = []
    try:
        names = source.names()
    except WeightsError as error:
        refusal = str(error)
    assert refusal.isprintable()
    for name in names:
        array = source.read(name)
        assert array.shape == source.shape(name)
        start = len(raw) - sum(source.read(each).nbytes for each in names)
        begin, end = json.loads(raw[8:start])[name]["data_offsets"]
        assert array.tobytes() == raw[start + begin : start + end]
