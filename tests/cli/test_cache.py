"""bossa cache: what is kept, and removing it."""

from __future__ import annotations

import json
import os
import time

import pytest

from bossa.weights.cache import WeightCache


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache with three entries, used 0, 10 and 20 days ago."""
    monkeypatch.setenv("BOSSA_CACHE", str(tmp_path))
    cache = WeightCache()
    for days in (0, 10, 20):
        cache.open_or_build(cache.key([], f"model {days}"), f"model-{days}", 5000, lambda memory, offset: None)
    for entry in cache.entries():
        used = time.time() - 86_400 * float(entry.source.removeprefix("model-"))
        os.utime(entry.path, (used, used))
    return cache


def test_list_shows_the_last_used_first(bossa, kept):
    result = bossa("cache", "list")
    *entries, total = result.out.splitlines()
    assert [line.split()[-1] for line in entries] == ["model-0", "model-10", "model-20"]
    assert ["0.0 days ago" in entries[0], "10.0 days ago" in entries[1]] == [True, True]
    assert total == f"3 in {kept.directory}: 27.3 KB"


def test_list_gives_json_on_request(bossa, kept):
    entries = json.loads(bossa("cache", "list", "--json").out)
    assert [entry["source"] for entry in entries] == ["model-0", "model-10", "model-20"]
    assert {entry["bytes"] for entry in entries} == {4096 + 5000}


def test_an_empty_cache_is_no_error(bossa, tmp_path, monkeypatch):
    monkeypatch.setenv("BOSSA_CACHE", str(tmp_path / "nothing"))
    assert bossa("cache", "list").out.startswith("0 in ")
    assert bossa("cache", "prune", "--all").out == "0 removed: 0 B\n"


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--older-than", "15"], ["model-0", "model-10"]),
        (["--max-size", "10KB"], ["model-0"]),
        (["--all"], []),
    ],
)
def test_prune_removes_what_the_option_says(bossa, kept, options, left):
    result = bossa("cache", "prune", *options)
    assert result.code == 0
    assert [entry.source for entry in kept.entries()] == left
    assert result.out.splitlines()[-1].startswith(f"{3 - len(left)} removed")


def test_prune_without_saying_what_removes_nothing(bossa, kept):
    result = bossa("cache", "prune")
    assert result.code == 2
    assert "say what to remove" in result.err
    assert len(kept.entries()) == 3


def test_verify_says_which_entries_are_damaged_and_removes_them_on_request(bossa, kept):
    assert bossa("cache", "verify").out.splitlines()[-1] == "3 of 3 are good"
    damaged = next(entry.path for entry in kept.entries() if entry.source == "model-10")
    raw = bytearray(damaged.read_bytes())
    raw[4096 + 100] ^= 1
    damaged.write_bytes(raw)
    result = bossa("cache", "verify")
    assert result.code == 2
    assert [line.split()[1] for line in result.out.splitlines() if line.endswith("model-10")] == ["damaged"]
    assert result.err.count("\n") == 1
    assert "1 of 3 are damaged: remove them with 'bossa cache verify --remove'" in result.err
    result = bossa("cache", "verify", "--remove")
    assert (result.code, result.out.splitlines()[-1]) == (0, "2 of 3 are good")
    assert sorted(entry.source for entry in kept.entries()) == ["model-0", "model-20"]


def test_a_pipe_among_the_entries_stops_no_command(bossa, kept):
    os.mkfifo(kept.directory / ("a" * 64 + ".weights"))
    assert "(not a regular file)" in bossa("cache", "list").out
    assert bossa("cache", "verify").code == 2
    assert bossa("cache", "prune", "--all").code == 0
    assert list(kept.directory.iterdir()) == []


@pytest.mark.parametrize("command", [["verify", "--remove"], ["prune", "--all"], ["prune", "--max-size", "0"]])
def test_what_cannot_be_removed_is_told_and_the_rest_is_removed(bossa, kept, tmp_path, command):
    """A directory that holds something is nobody's entry; a link is removed, and what it leads to is not."""
    good = {entry.path for entry in kept.entries()}
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    names = [kept.directory / (letter * 64 + ".weights") for letter in "0123"]
    for full in names[:2]:
        full.mkdir()
        (full / "file").write_text("mine")
    names[2].mkdir()
    names[3].symlink_to(outside)
    result = bossa("cache", *command)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "cannot be removed (Directory not empty): remove it yourself, and 1 more that cannot be" in result.err
    assert set(kept.directory.iterdir()) == {*names[:2], *(good if command[0] == "verify" else ())}
    assert (outside / "file").read_text() == "mine"


def test_what_another_version_keeps_is_listed_and_is_not_called_damaged(bossa, kept):
    path = kept.entries()[0].path
    raw = bytearray(path.read_bytes())
    raw[8] += 1
    path.write_bytes(raw)
    assert "(of another version of bossa)" in bossa("cache", "list").out
    result = bossa("cache", "verify", "--remove")
    assert (result.code, result.out.splitlines()[-1]) == (0, "2 of 2 are good")
    assert path.exists()


def test_names_in_the_cache_are_shown_escaped(bossa, kept):
    kept.open_or_build(kept.key([], "evil"), "a\x1b[2J\u202e", 5000, lambda memory, offset: None)
    for arguments in (["list"], ["list", "--json"], ["prune", "--all"]):
        out = bossa("cache", *arguments).out
        assert not {"\x1b", "\u202e"} & set(out)
        assert "[2J" in out
