"""What users name to be written: whose links are followed, and what is replaced or written as it is."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from bossa.host.output import check_writable, destination, writing


def test_a_file_is_replaced_when_it_is_whole_and_a_link_of_this_user_stays_one(tmp_path):
    (tmp_path / "link").symlink_to("folder/real")
    (tmp_path / "folder").mkdir()
    with writing(tmp_path / "link") as file:
        file.write(b"first")
        assert not (tmp_path / "folder" / "real").exists()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "real").read_bytes() == b"first"
    assert os.listdir(tmp_path / "folder") == ["real"]


def test_a_link_of_another_user_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    monkeypatch.setattr("bossa.host.output.os.geteuid", lambda: os.getuid() + 1)
    real = os.lstat

    def lstat(path):
        values = list(real(path))
        values[stat.ST_UID] = os.getuid() + 2
        return os.stat_result(values)

    monkeypatch.setattr("bossa.host.output.os.lstat", lstat)
    with pytest.raises(PermissionError, match="another user"):
        destination(tmp_path / "link")
    os.close(destination("/dev/stdout"))


def test_links_that_go_round_end(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        destination(tmp_path / "a")


def test_a_pipe_and_a_device_are_written_and_stay_what_they_are(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    thread.start()
    with writing(pipe) as file:
        file.write(b"through")
    thread.join()
    assert read == [b"through"]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    with writing("/dev/null") as file:
        file.write(b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_a_descriptor_by_its_name_is_written_where_it_stands(tmp_path, name):
    with open(tmp_path / "out", "w+b", buffering=0) as file:
        file.write(b"before,")
        with writing(name.format(file.fileno())) as stream:
            stream.write(b"after")
        file.seek(0)
        assert file.read() == b"before,after"
    assert os.listdir(tmp_path) == ["out"]


def test_a_link_to_a_name_of_dots_is_a_folder(tmp_path):
    (tmp_path / "link").symlink_to("folder/..")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        destination(tmp_path / "link")


@pytest.mark.parametrize("name", [".", "..", "folder", "folder/", "folder/..", "missing/out", "file/out"])
def test_what_cannot_be_written_is_found_out_before_the_work(tmp_path, monkeypatch, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError):
        check_writable(name)


def test_what_can_be_written_passes_and_nothing_is_made(tmp_path):
    check_writable(tmp_path / "new")
    check_writable("/dev/null")
    assert os.listdir(tmp_path) == []
