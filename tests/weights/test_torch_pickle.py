"""Torch files that ask for more than they hold, each refused before torch makes any of it."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.errors import WeightsError
from bossa.weights.open import open_weights
from bossa.weights.torch_pickle import Excess, check_torch_file

STATE = OrderedDict(a=torch.arange(6.0).reshape(2, 3))
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06"  # of six numbers
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n("
REST = b"\x89ccollections\nOrderedDict\n)Rt"


def text(size: int) -> bytes:
    return b"X" + struct.pack("<I", size)


def number(value: int) -> bytes:
    raw = pickle.encode_long(value)
    return b"\x8a" + bytes([len(raw)]) + raw


def tensor(modern: bool, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A tensor of the storage, as its instructions."""
    shape, steps = (b"(" + b"".join(map(number, values)) + b"t" for values in (size, stride))
    return TENSOR + STORAGE + (b"tQ" if modern else b"NtQ") + number(offset) + shape + steps + REST + b"R"


def written(path: Path, instructions: bytes, modern: bool) -> Path:
    """A torch file whose state dict has what these instructions make."""
    made = b"\x80\x02}" + text(1) + b"a" + instructions + b"s."
    file = io.BytesIO()
    torch.save(STATE, file, _use_new_zipfile_serialization=modern)
    if not modern:
        data = file.getvalue()
        start = data.index(b"\x80\x02ccollections")
        end = data.index(b".\x80\x02]", start)
        (key,) = pickle.loads(data[end + 1 :])
        made = made.replace(text(1) + b"0", text(len(key)) + key.encode())
        path.write_bytes(data[:start] + made + data[end + 1 :])
        return path
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), made if name.endswith("data.pkl") else old.read(name))
    return path


LARGE = 1 << 33
HOSTILE = {
    "a text": text(2**31) + b"abc",
    "a text to the end": text(2**32 - 1),
    "bytes of a size": b"cbuiltins\nbytearray\n" + number(LARGE) + b"\x85R",
    "bytes of a size in Python 2": b"c__builtin__\nbytearray\n" + number(LARGE) + b"\x85R",
    "a storage of a size": b"ctorch\nFloatStorage\n" + number(LARGE) + b"\x85R",
    "an untyped storage": b"ctorch.storage\nUntypedStorage\n" + number(LARGE) + b"\x85R",
    "a tensor of a size": b"ctorch\nFloatTensor\n" + number(LARGE) + b"\x85R",
    "a new tensor": b"ctorch\nTensor\n" + number(LARGE) + b"\x85\x81",
    "a tensor of a shape": b"ctorch\nTensor\nctorch\nSize\n(" + number(LARGE) + b"t\x85R\x85R",
    "copies": b"(" + text(1000) + b"x" * 1000 + b"q\1" + b"c_codecs\nencode\nh\1\x85R" * 10**4 + b"t",
}


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_as_large_as_it_is_told_to_be_is_not_made(tmp_path: Path, what: str, modern: bool):
    path = written(tmp_path / "x.pt", HOSTILE[what], modern)
    tracemalloc.start()
    with pytest.raises(WeightsError, match=r"^[^\n]*x\.pt: is not a torch state dict, or is damaged"):
        open_weights(path).names()
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("modern", [True, False])
@given(
    size=st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
    stride=st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
    offset=st.integers(0, 8),
)
@settings(deadline=None)
def test_a_tensor_lies_in_its_storage_or_is_not_made(
    tmp_path_factory: pytest.TempPathFactory,
    modern: bool,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int,
):
    stride = (*stride, 1, 1, 1)[: len(size)]
    path = written(tmp_path_factory.mktemp("torch") / "x.pt", tensor(modern, size, stride, offset), modern)
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    if last < 6 or 0 in size:
        check_torch_file(path)
    else:
        with pytest.raises(Excess, match="numbers in a storage of 6"):
            check_torch_file(path)


def test_a_tensor_set_after_it_is_made_lies_in_its_storage(tmp_path: Path):
    state = STORAGE + b"tQK\0" + number(LARGE) + b"\x85K\1\x85t"
    path = written(tmp_path / "x.pt", b"ctorch\nTensor\n)\x81(" + state + b"b", True)
    with pytest.raises(WeightsError, match=r"it asks for a tensor of 8,589,934,592 numbers in a storage of 6"):
        open_weights(path).names()


@pytest.mark.parametrize("modern", [True, False])
def test_storages_lie_in_the_file_all_together(tmp_path: Path, modern: bool):
    instructions = tensor(modern, (2, 3), (3, 1))
    assert open_weights(written(tmp_path / "x.pt", instructions, modern)).names() == ["a"]
    larger = instructions.replace(b"cpuK\x06", b"cpu" + number(LARGE))
    with pytest.raises(WeightsError, match=r"it asks for storages of 34,359,738,368 bytes, and has [\d,]+ bytes\)"):
        open_weights(written(tmp_path / "x.pt", larger, modern)).names()
    many = b"(" + b"".join(
        instructions.replace(b"\1\0\0\x000", text(3)[1:] + b"%03d" % each).replace(b"cpuK\x06", b"cpuM\x80\0")
        for each in range(200)
    )
    with pytest.raises(Excess, match="storages of"):
        check_torch_file(written(tmp_path / "x.pt", many + b"t", modern))


@pytest.mark.parametrize("packed", ["data.pkl", "data/0"])
def test_what_is_compressed_is_not_unpacked(tmp_path: Path, packed: str):
    file = io.BytesIO()
    torch.save(STATE, file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "x.pt", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            method = zipfile.ZIP_DEFLATED if name.endswith(packed) else zipfile.ZIP_STORED
            larger = data + bytes(1 << 24) if name.endswith(packed) else data
            new.writestr(zipfile.ZipInfo(name), larger, method)
    with pytest.raises(WeightsError, match=r"it asks for 16,777,\d+ bytes in one of its members"):
        open_weights(tmp_path / "x.pt").names()


def test_a_file_of_many_tensors_is_looked_through_and_read(tmp_path: Path):
    base = torch.arange(2000.0)
    state = {f"layers.{each}.weight": base[each : each + 7] for each in range(1500)} | {"more": [bytes(999), 10**12]}
    for modern in (True, False):
        torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=modern)
        assert open_weights(tmp_path / "x.pt").read("layers.1499.weight").tolist() == base[1499:1506].tolist()


@pytest.mark.parametrize("modern", [True, False])
def test_a_tensor_that_repeats_one_number_beyond_the_file_is_refused(tmp_path: Path, modern: bool):
    few, many = torch.ones(1).expand(20, 30), torch.ones(1).expand(1 << 40)
    torch.save({"a": few}, tmp_path / "x.pt", _use_new_zipfile_serialization=modern)
    assert open_weights(tmp_path / "x.pt").read("a").shape == (20, 30)
    torch.save({"a": many}, tmp_path / "x.pt", _use_new_zipfile_serialization=modern)
    with pytest.raises(
        WeightsError, match=r"tensor 'a' has 1,099,511,627,776 numbers, and the file [\d,]+ bytes: save"
    ):
        open_weights(tmp_path / "x.pt").names()
