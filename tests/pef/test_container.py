"""The reader against files that are not what they should be: a clear error or the same content, never anything else."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bossa.errors import PefError
from bossa.pef import Pef
from bossa.pef.reader import read
from bossa.pef.writer import encode

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\\:/", min_codepoint=32), min_size=1, max_size=20
).filter(lambda name: name not in (".", "..") and "\x7f" not in name)


def packed(members: dict[str, bytes], **limit: int) -> bytes:
    return b"".join(encode({name: memoryview(data) for name, data in members.items()}, "here", **limit))


def unpacked(raw: bytes, **limit: int) -> dict[str, bytes]:
    return {name: bytes(data) for name, data in read(memoryview(raw), "here", **limit).data.items()}


@given(st.dictionaries(NAMES, st.binary(max_size=300), min_size=1, max_size=6), st.sampled_from([0xFFFFFFFF, 200, 0]))
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back_by_us_and_by_zipfile_with_64_bit_sizes_too(members: dict[str, bytes], limit: int):
    raw = packed(members, limit=limit)
    assert unpacked(raw, limit=limit) == members
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == members


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_are_refused(raw: bytes):
    for head in (b"", b"PK\x03\x04"):
        with pytest.raises(PefError):
            Pef.from_bytes(head + raw)
        with pytest.raises(PefError):
            Pef.from_bytes(head + raw + b"PK\x05\x06" + raw[:18].ljust(18, b"\0"))


def content(pef: Pef) -> tuple[object, dict[str, bytes]]:
    pef.verify()
    return pef.manifest, {name: bytes(pef.member(name)) for name in pef.names()}


@given(data=st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_file_is_refused_or_reads_the_same(data: st.DataObject, pef: Pef):
    raw = packed({name: bytes(pef.member(name)) for name in pef.names()})
    right = content(pef)
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "remove", "swap", "number"]))
    at = data.draw(st.integers(0, len(raw) - 1))
    size = data.draw(st.integers(1, 70))
    match kind:
        case "flip":
            mutated = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
        case "cut":
            mutated = raw[:at]
        case "insert":
            mutated = raw[:at] + data.draw(st.binary(min_size=size, max_size=size)) + raw[at:]
        case "remove":
            mutated = raw[:at] + raw[at + size :]
        case "swap":
            other = data.draw(st.integers(0, len(raw) - 1))
            mutated = raw[:at] + raw[other : other + size] + raw[at + size :]
        case _:
            value = data.draw(st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]))
            mutated = raw[:at] + struct.pack("<I", value) + raw[at + 4 :]
    refusal = ""
    found = right
    try:
        found = content(Pef.from_bytes(mutated))
    except PefError as error:
        refusal = str(error)
    assert found == right
    assert "\n" not in refusal
    assert not refusal or refusal.count(": ") >= 2, "what, where, and what to do"


def test_every_single_byte_outside_the_data_is_checked(pef: Pef):
    raw = packed({name: bytes(pef.member(name)) for name in pef.names()})
    for at in range(len(raw)):
        mutated = raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :]
        with pytest.raises(PefError):
            Pef.from_bytes(mutated).verify()


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_members_in_any_other_order_are_refused(data: st.DataObject, pef: Pef):
    """The same members, each as it was, and their container well made: there is one encoding of them."""
    names = data.draw(st.permutations(pef.names()))
    raw = packed({name: bytes(pef.member(name)) for name in names})
    if names == pef.names():
        assert content(Pef.from_bytes(raw)) == content(pef)
        return
    with pytest.raises(PefError, match="its members are not in order"):
        Pef.from_bytes(raw)


def test_the_manifest_is_first_and_the_weights_are_last(pef: Pef):
    names = pef.names()
    assert (names[0], names[-1]) == ("manifest.json", "weights.bin")
    assert names[1:-1] == sorted(names[1:-1])


def test_every_truncation_is_refused(pef: Pef):
    raw = packed({name: bytes(pef.member(name)) for name in pef.names()})
    for size in range(0, len(raw), 7):
        with pytest.raises(PefError):
            Pef.from_bytes(raw[:size])


def archive(*items: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in items:
            file.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"#!/bin/sh", "not a PEF"),
        (archive(("manifest.json", b"x" * 999), compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (packed({"name_1": b"1", "name_2": b"2"}).replace(b"name_2", b"name_1"), "'name_1' is there twice"),
        (archive(("../a", b"1")), "not a member name"),
        (archive(("/a", b"1")), "not a member name"),
        (archive(("a\\b", b"1")), "not a member name"),
        (archive(("a", b"1")) + b"tail", "cut short, or bytes were added"),
        (packed({"program.cc": b"int x;"}), r"it has no manifest\.json"),
        (packed({"manifest.json": b"{"}), "not valid JSON"),
        (packed({"manifest.json": b"[]"}), "not a JSON object"),
        (packed({"manifest.json": b"[" * 100_000}), "not valid JSON"),
        (packed({"manifest.json": b'{"a": [' + b"[]," * 1_000_000 + b"0]}"}), "holds more than 1,048,576 values"),
        (packed({"manifest.json": b'{"a": "' + b"x" * (16 << 20) + b'"}'}), "is larger than 16 MiB"),
        (packed({"manifest.json": b'{"a": 1, "a": 2}'}), "a key is there twice"),
        (packed({"manifest.json": b'{"format_version": 3}'}), "made by a newer Bossa .* upgrade"),
        (packed({"manifest.json": b'{"format_version": ' + b"9" * 9999 + b"}"}), "not valid JSON"),
        (packed({"manifest.json": b"\xff"}), "not valid JSON"),
    ],
)
def test_each_kind_of_wrong_file_is_refused_with_its_reason(raw: bytes, reason: str):
    with pytest.raises(PefError, match=reason):
        Pef.from_bytes(raw)


def with_directory(raw: bytes, **changes: Any) -> bytes:
    """The container with fields of its first directory record changed, and its end record left as it was."""
    start = raw.index(b"PK\x01\x02")
    fields = {"method": (10, "<H"), "crc": (16, "<I"), "stored": (20, "<I"), "size": (24, "<I"), "offset": (42, "<I")}
    result = bytearray(raw)
    for key, value in changes.items():
        place, form = fields[key]
        struct.pack_into(form, result, start + place, value)
    return bytes(result)


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 64},
        {"offset": 0x7FFFFFFF},
        {"stored": 10**9, "size": 10**9},
        {"stored": 0xFFFFFFFF, "size": 0xFFFFFFFF},
        {"offset": 0xFFFFFFFF},
        {"size": 0, "stored": 0},
        {"crc": 1},
    ],
)
def test_members_out_of_range_or_overlapping_are_refused(changes: dict[str, int], pef: Pef):
    raw = packed({name: bytes(pef.member(name)) for name in pef.names()})
    with pytest.raises(PefError, match="damaged"):
        Pef.from_bytes(with_directory(raw, **changes))


def test_two_members_that_share_bytes_are_refused():
    raw = bytearray(packed({"a": b"1" * 64, "b": b"2" * 64}))
    first = raw.index(b"PK\x01\x02")
    second = raw.index(b"PK\x01\x02", first + 1)
    struct.pack_into("<I", raw, second + 42, 0)
    with pytest.raises(PefError, match="'b' overlaps another member"):
        read(memoryview(raw), "here")
