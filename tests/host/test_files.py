"""One writer for files: beside, exclusive, never through links, renamed when whole."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from bossa.host.files import Busy, Lock, create_beside, is_private, open_regular, private_folder, replacing


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "out.json"
    target.write_bytes(b"before")
    with replacing(target) as file:
        file.write(b"after")
        assert target.read_bytes() == b"before"
    assert target.read_bytes() == b"after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.json"]


def test_a_writer_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
    target = tmp_path / "out.json"
    target.write_bytes(b"before")

    def fail() -> None:
        with replacing(target) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.json"]


def test_a_file_beside_is_new_even_where_its_name_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr("bossa.host.files.os.urandom", bytes)
    trap = tmp_path / ".out.0000000000000000.tmp"
    trap.symlink_to(tmp_path / "precious")
    with pytest.raises(FileExistsError):
        create_beside(tmp_path / "out")
    assert not (tmp_path / "precious").exists()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "missing"])
def test_only_a_regular_file_is_opened_and_opening_never_waits(tmp_path, kind):
    path = tmp_path / "entry"
    if kind == "link":
        (tmp_path / "real").write_bytes(b"x")
        path.symlink_to(tmp_path / "real")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(OSError):
        open_regular(path)


def test_a_file_that_others_may_write_is_not_private(tmp_path):
    path = tmp_path / "entry"
    path.write_bytes(b"x")
    path.chmod(0o600)
    os.close(open_regular(path, is_private))
    path.chmod(0o622)
    with pytest.raises(PermissionError):
        open_regular(path, is_private)


def test_a_private_folder_has_the_rights_of_this_user_alone_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        folder = private_folder(tmp_path / "cache" / "weights")
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_second_holder_of_a_lock_is_refused_and_a_later_one_is_not(tmp_path):
    target = tmp_path / "out.jsonl"
    with Lock(target), pytest.raises(Busy):
        Lock(target)
    with Lock(target):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_never_taken_through_a_link(tmp_path):
    (tmp_path / ".out.jsonl.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        Lock(tmp_path / "out.jsonl")
    assert not (tmp_path / "precious").exists()


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
def test_a_name_of_any_length_has_room_beside_it_and_a_lock_of_its_own(tmp_path, letter):
    name = letter * ((255 - 8) // len(letter.encode()))
    targets = [tmp_path / (name + ending) for ending in (".jsonl", ".other")]
    for target in targets:
        with replacing(target) as file:
            file.write(b"x")
    with Lock(targets[0]), Lock(targets[1]):
        pass
    assert sorted(tmp_path.iterdir()) == sorted(targets)


def test_a_file_system_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    def refuse(_descriptor, _operation):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("bossa.host.files.fcntl.flock", refuse)
    with Lock(tmp_path / "out.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == []
