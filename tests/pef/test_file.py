"""What a PEF gives back, and what it refuses to be made of."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bossa.errors import PefError
from bossa.pef import Pef, program_file


def test_a_saved_pef_gives_back_what_it_was_built_of(pef: Pef, members: dict[str, bytes], tmp_path: Path):
    path = pef.save(tmp_path / "new" / "folder" / "tiny.pef")
    with Pef.open(path) as opened:
        opened.verify()
        assert opened.names() == ["manifest.json", *sorted(members)]  # weights.bin is the last by name too
        assert {name: bytes(opened.member(name)) for name in members} == members
        assert opened.manifest == pef.manifest
        assert opened.source() == "int x; // ∑"
        assert opened.program_json() == '{"ops": []}'
        assert opened.library("x86-64-v3") == members["program.x86-64-v3.so"]
        assert opened.tokenizer_files() == {"tokenizer.json": b"{}"}
        assert opened.config() == {"model_type": "tiny"}
        assert opened.generation_config() == {}
        weights = opened.weights()
        assert weights is not None
        assert bytes(weights) == members["weights.bin"]
    assert bytes(weights) == members["weights.bin"], "a view outlives the file"


def test_the_weights_lie_last_and_everything_is_aligned(pef: Pef, manifest: dict[str, Any], tmp_path: Path):
    odd = {"program.json": b"{}", "zz.txt": b"z", "weights.bin": b"w", "program.x86-64-v3.so": b"s"}
    pef = Pef.build(manifest | {"constants": []}, odd)
    path = pef.save(tmp_path / "a.pef")
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert [item.filename for item in archive.infolist()][-1] == "weights.bin"
        assert archive.testzip() is None
        for item in archive.infolist():
            header = raw[item.header_offset : item.header_offset + 30]
            start = item.header_offset + 30 + int.from_bytes(header[26:28], "little")
            start += int.from_bytes(header[28:30], "little")
            assert start % 64 == 0
            assert item.compress_type == zipfile.ZIP_STORED


def test_the_same_input_gives_the_same_bytes(manifest: dict[str, Any], members: dict[str, bytes], tmp_path: Path):
    turned = dict(reversed(members.items()))
    first = Pef.build(manifest, members).save(tmp_path / "a.pef").read_bytes()
    second = Pef.build(dict(reversed(manifest.items())), turned).save(tmp_path / "b.pef").read_bytes()
    assert first == second
    assert Pef.open(tmp_path / "a.pef").save(tmp_path / "a.pef").read_bytes() == first


def test_bytes_of_any_kind_can_be_members(manifest: dict[str, Any], members: dict[str, bytes]):
    views = {name: memoryview(bytearray(data)) for name, data in members.items()}
    assert bytes(Pef.build(manifest, views).member("program.cc")) == members["program.cc"]


def test_a_missing_file_a_directory_and_an_empty_file_are_refused(tmp_path: Path):
    with pytest.raises(PefError, match="no such file: make one with 'bossa compile'"):
        Pef.open(tmp_path / "no.pef")
    with pytest.raises(PefError, match=r"is a directory: pass the \.pef file in it"):
        Pef.open(tmp_path)
    (tmp_path / "empty.pef").touch()
    with pytest.raises(PefError, match="not a PEF"):
        Pef.open(tmp_path / "empty.pef")


def test_a_pef_for_another_cpu_says_what_it_is_for(pef: Pef):
    with pytest.raises(PefError, match=r"no program for aarch64 \(it is for x86-64-v3\)"):
        pef.library("aarch64")


def test_a_missing_member_is_named(pef: Pef):
    with pytest.raises(PefError, match=r"no member 'generation\.json'"):
        pef.member("generation.json")


def test_a_damaged_member_is_refused_by_name_when_it_is_read_and_the_others_are_not(pef: Pef, tmp_path: Path):
    path = pef.save(tmp_path / "a.pef")
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"int x;")] ^= 1
    damaged = Pef.from_bytes(bytes(raw))
    assert damaged.program_json()
    with pytest.raises(PefError, match=r"'program\.cc' has a wrong SHA-256"):
        damaged.source()
    with pytest.raises(PefError, match=r"'program\.cc'"):
        damaged.verify()


def test_damaged_weights_are_found_by_verify_alone(pef: Pef, tmp_path: Path):
    raw = bytearray(pef.save(tmp_path / "a.pef").read_bytes())
    raw[raw.index(b"wwww")] ^= 1
    damaged = Pef.from_bytes(raw)
    assert damaged.weights() is not None
    with pytest.raises(PefError, match=r"'weights\.bin' has a wrong SHA-256"):
        damaged.verify()


@pytest.mark.parametrize(
    "name", ["../up", "/root", "a//b", "a/../b", "a\\b", "", ".", "c:d", "a\nb", "\ud800", "x" * 300]
)
def test_a_member_name_that_could_escape_is_refused(pef: Pef, manifest: dict[str, Any], name: str, tmp_path: Path):
    members = {"program.x86-64-v3.so": b"", "constants.bin": bytes(88), name: b"evil"}
    with pytest.raises(PefError):
        Pef.build(manifest, members).save(tmp_path / "a.pef")
    assert list(tmp_path.iterdir()) == []


def test_a_target_without_its_library_is_refused(manifest: dict[str, Any], members: dict[str, bytes]):
    with pytest.raises(PefError, match="names target portable, which it does not hold"):
        Pef.build(manifest | {"targets": ["x86-64-v3", "portable"]}, members)


def test_a_constant_beyond_its_member_is_refused(manifest: dict[str, Any], members: dict[str, bytes]):
    with pytest.raises(PefError, match=r"'cos' reaches beyond constants\.bin"):
        Pef.build(manifest, members | {"constants.bin": bytes(87)})


def test_a_manifest_that_is_too_large_is_refused(pef: Pef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = pef.save(tmp_path / "a.pef")
    monkeypatch.setattr(program_file, "MAX_BYTES", 100)
    with pytest.raises(PefError, match=r"its manifest\.json is larger than"):
        Pef.open(path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_failed_save_leaves_nothing_and_keeps_the_old_file(
    pef: Pef, tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.pef"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PefError, match=r"a\.pef: cannot be written: "):
        pef.save(path)
    with pytest.raises(PefError):
        pef.save(tmp_path / "new" / "deep" / "b.pef")
    assert [item.name for item in tmp_path.iterdir()] == ["a.pef"]
    assert path.read_bytes() == b"old"


def test_a_file_size_limit_is_reported_as_a_full_disk(pef: Pef, tmp_path: Path):
    source = pef.save(tmp_path / "a.pef")
    program = (
        "import resource, sys; from bossa.pef import Pef; from bossa.errors import PefError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try: Pef.open(sys.argv[1]).save(sys.argv[2])\n"
        "except PefError as error: print(error)\n"
    )
    target = tmp_path / "full" / "b.pef"
    result = subprocess.run([sys.executable, "-c", program, source, target], capture_output=True, text=True, check=True)
    assert "the disk is full" in result.stdout
    assert result.stdout.count("\n") == 1
    assert not target.parent.exists()


def test_saving_where_a_file_is_in_the_way_is_one_line(pef: Pef, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(PefError, match="is in the way"):
        pef.save(tmp_path / "file" / "a.pef")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.pef")
    with pytest.raises(PefError, match="is not a regular file"):
        Pef.open(tmp_path / "pipe.pef")


def test_a_pef_opens_without_numpy():
    program = "import sys; sys.modules['numpy'] = None; import bossa.pef"
    subprocess.run([sys.executable, "-c", program], check=True)
