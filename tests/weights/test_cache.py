"""The cache of packed weights: what is this user's alone, what is noticed at once, and what `verify` notices."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bossa.errors import WeightsError
from bossa.weights import Slot, Source, WeightCache, bind, open_weights
from bossa.weights.cache import default_directory
from bossa.weights.entry import HEADER, Header, parse

PAGE = 4096
SLOTS = [Slot("w", "flat", (40 * 1024 + 16,), "fp32", (Source(("w",), (40 * 1024 + 16,)),))]
"""Forty pages and a line."""


def arrays(seed: int = 0) -> dict[str, Any]:
    return {"w": np.random.default_rng(seed).standard_normal(SLOTS[0].shape).astype(np.float32)}


@pytest.fixture
def kept(checkpoint: Any, tmp_path: Path) -> WeightCache:
    """A cache with one entry."""
    cache = WeightCache(tmp_path)
    bind(SLOTS, checkpoint(arrays()), cache=cache)
    return cache


def entry(cache: WeightCache) -> Path:
    (found,) = cache.entries()
    return found.path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0, 0o22, 0o777])
def test_folder_and_entries_are_this_user_s_alone_whatever_the_umask(checkpoint: Any, tmp_path: Path, umask: int):
    cache = WeightCache(tmp_path / "a" / "b")
    before = os.umask(umask)
    try:
        bind(SLOTS, checkpoint(arrays()), cache=cache)
    finally:
        os.umask(before)
    assert mode(cache.directory) == mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    assert mode(entry(cache)) == 0o600


def test_a_folder_that_was_left_open_is_closed_when_it_is_used(checkpoint: Any, kept: WeightCache):
    kept.directory.chmod(0o777)
    assert bind(SLOTS, checkpoint(arrays()), cache=kept).cached
    assert mode(kept.directory) == 0o700


def test_in_another_user_s_folder_weights_are_packed_into_memory_with_a_warning(
    checkpoint: Any, kept: WeightCache, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bound = bind(SLOTS, checkpoint(arrays()), cache=kept)
    assert not bound.cached
    assert [str(warning.message) for warning in caught] == [
        f"{kept.directory}: packed weights cannot be kept (it belongs to another user), so they are packed again each"
        " time: free some space there, or set BOSSA_CACHE to another directory"
    ]


@pytest.mark.parametrize("rights", [0o666, 0o620, 0o602])
def test_an_entry_that_others_may_write_is_not_used(checkpoint: Any, kept: WeightCache, rights: int):
    entry(kept).chmod(rights)
    assert [problem for _, problem in kept.verify()] == ["others may write to it"]
    assert not bind(SLOTS, checkpoint(arrays()), cache=kept).cached
    assert mode(entry(kept)) == 0o600


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_regular_file_is_not_used_and_nothing_waits_for_it(
    checkpoint: Any, kept: WeightCache, kind: str, tmp_path: Path
):
    path = entry(kept)
    good = path.read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(good)
    path.unlink()
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert [found.source for found in kept.entries()] == ["(not a regular file)"]
    assert [problem for _, problem in kept.verify()] == ["not a regular file"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bound = bind(SLOTS, checkpoint(arrays()), cache=kept)
    assert len(caught) == (kind == "folder")
    assert not bound.cached
    np.testing.assert_array_equal(bound.view("w"), arrays()["w"])
    assert elsewhere.read_bytes() == good
    kept.prune(everything=True)
    assert list(kept.directory.iterdir()) == []


def damage(path: Path, at: int, data: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[at : at + len(data)] = data
    path.write_bytes(raw)


@pytest.mark.parametrize("page", [0, 1, 2, 17, 38, 39])
@pytest.mark.parametrize("content", [bytes(PAGE), bytes(range(256)) * 16])
def test_any_page_that_was_not_written_is_noticed_at_once(
    checkpoint: Any, kept: WeightCache, page: int, content: bytes
):
    damage(entry(kept), HEADER + page * PAGE, content)
    again = bind(SLOTS, checkpoint(arrays()), cache=kept)
    assert not again.cached
    np.testing.assert_array_equal(again.view("w"), arrays()["w"])


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_is_noticed_when_an_entry_is_verified(data: st.DataObject, kept: WeightCache):
    path = entry(kept)
    good = path.read_bytes()
    # The rest of the header's page is not read.
    end = 20 + int.from_bytes(good[12:16], "little")
    at = data.draw(st.one_of(st.integers(0, end - 1), st.integers(HEADER, len(good) - 1)))
    flip = data.draw(st.integers(1, 255))
    try:
        damage(path, at, bytes([good[at] ^ flip]))
        ((_, problem),) = kept.verify()
    finally:
        path.write_bytes(good)
    assert problem
    assert [problem for _, problem in kept.verify()] == [""]


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_a_header_of_any_bytes_is_read_or_refused(text: bytes):
    good = Header("k", "s", 1, 2, 3).encode()
    assert parse(good) == Header("k", "s", 1, 2, 3)
    assert isinstance(parse((good[:16] + text + good)[:HEADER]), str)


def test_a_long_source_is_cut_to_fit_the_header():
    header = parse(Header("k" * 64, "\U0001f600" * 1500, 1, 2, 3).encode())
    assert isinstance(header, Header)
    assert "\U0001f600" * len(header.source) == header.source


def test_a_checkpoint_that_changes_in_place_is_packed_again_whatever_its_times(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    cache = WeightCache(tmp_path)
    save_file(arrays(0), path)
    first = path.read_bytes()
    before = path.stat()
    bind(SLOTS, open_weights(path), cache=cache)
    save_file(arrays(1), tmp_path / "other.safetensors")
    with path.open("r+b") as file:
        file.write((tmp_path / "other.safetensors").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (len(first), before.st_ino)
    bound = bind(SLOTS, open_weights(path), cache=cache)
    np.testing.assert_array_equal(bound.view("w"), arrays(1)["w"])


def test_a_link_to_another_checkpoint_is_another_checkpoint(tmp_path: Path):
    cache = WeightCache(tmp_path)
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        save_file(arrays(seed), tmp_path / str(seed) / "model.safetensors")
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(tmp_path / str(seed))
        bound = bind(SLOTS, open_weights(tmp_path / "link"), cache=cache)
        np.testing.assert_array_equal(bound.view("w"), arrays(seed)["w"])


def test_a_checkpoint_that_changes_while_it_is_packed_is_refused(
    checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = checkpoint(arrays())
    identities = iter(["before", "after"])
    monkeypatch.setattr(source, "identity", lambda: next(identities))
    with pytest.raises(WeightsError, match="changed while it was read"):
        bind(SLOTS, source, cache=WeightCache(tmp_path))
    assert WeightCache(tmp_path).entries() == []


@pytest.mark.parametrize("variable", ["BOSSA_CACHE", "XDG_CACHE_HOME"])
def test_the_home_of_a_user_that_there_is_not_is_one_line(monkeypatch: pytest.MonkeyPatch, variable: str):
    monkeypatch.delenv("BOSSA_CACHE", raising=False)
    monkeypatch.setenv(variable, "~nosuchuser/x")
    with pytest.raises(WeightsError, match=rf"^{variable}: ~nosuchuser/x: there is no such user: set it to another"):
        WeightCache()


def test_without_a_home_the_cache_is_beside_the_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def none(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("BOSSA_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", none)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert default_directory() == tmp_path / f"bossa-{os.geteuid()}"


def test_a_directory_in_the_place_of_an_entry_is_told_each_time(checkpoint: Any, kept: WeightCache):
    place = entry(kept)
    place.unlink()
    place.mkdir()
    for _ in range(2):
        with pytest.warns(UserWarning, match="packed weights cannot be kept") as caught:
            bound = bind(SLOTS, checkpoint(arrays()), cache=kept)
        assert not bound.cached
        (warning,) = caught
        assert str(warning.message).startswith(f"{place}: packed weights cannot be kept (Is a directory), so they are")
        assert str(warning.message).endswith("remove what is in its place, or set BOSSA_CACHE to another directory")
    assert list(kept.directory.iterdir()) == [place]


def test_a_folder_with_a_name_that_is_too_long_is_told_in_a_line_that_can_be_read(checkpoint: Any):
    with pytest.warns(UserWarning, match=r"^/a{90,} … a*/weights: packed weights cannot be kept") as caught:
        assert not bind(SLOTS, checkpoint(arrays()), cache=WeightCache("/" + "a" * 5000)).cached
    assert len(str(caught[0].message)) < 400
