"""Binding, the blob's layout, and the cache of packed weights."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bossa.errors import WeightsError
from bossa.weights import Slot, Source, WeightCache, bind, bind_blob, blob_layout, cache

SLOTS = [
    Slot("bias", "flat", (3,), "fp32", (Source(("b",), (3,)),)),
    Slot("fc", "panels", (20, 5), "fp32", (Source(("w",), (20, 5)),)),
    Slot("wte", "rows", (7, 5), "int8", (Source(("e", "head"), (7, 5)),)),
]


@pytest.fixture
def arrays() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    shapes = {"b": (3,), "w": (20, 5), "e": (7, 5)}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_slots_lie_in_order_at_multiples_of_64_bytes(checkpoint: Any, arrays: Any):
    offsets, total = blob_layout(SLOTS)
    assert offsets == [0, 64, 64 + 640]
    assert total == 64 + 640 + 128
    with bind(SLOTS, checkpoint(arrays)) as bound:
        assert bound.nbytes == bound.blob.nbytes == total
        base = bound.addresses()[0]
        assert base % 64 == 0
        assert [address - base for address in bound.addresses()] == offsets
        assert bytes(bound.blob[64 : 64 + 4]) == arrays["w"][0, :1].tobytes()


def test_bound_weights_are_read_only_and_closing_ends_them(checkpoint: Any, arrays: Any):
    bound = bind(SLOTS, checkpoint(arrays))
    with pytest.raises(ValueError, match="read-only"):
        bound.view("bias")[0] = 1
    view = bound.view("bias")
    bound.close()
    np.testing.assert_array_equal(view, arrays["b"])
    with pytest.raises(WeightsError, match="are closed"):
        bound.addresses()


def test_what_is_packed_is_released(checkpoint: Any, arrays: Any, monkeypatch: pytest.MonkeyPatch):
    source = checkpoint(arrays)
    released: list[str] = []
    monkeypatch.setattr(source, "release", released.append)
    bind(SLOTS, source)
    assert released == ["b", "w", "e"]


def test_no_slots_bind_to_nothing(checkpoint: Any):
    assert bind([], checkpoint({})).nbytes == 0
    assert bind_blob([], memoryview(b"")).addresses() == []


def test_a_blob_gives_the_same_slots_wherever_it_lies(checkpoint: Any, arrays: Any):
    bound = bind(SLOTS, checkpoint(arrays))
    for shift in range(0, 70, 7):
        memory = memoryview(bytes(shift) + bytes(bound.blob))[shift:]
        again = bind_blob(SLOTS, memory)
        assert again.addresses()[0] % 64 == 0
        np.testing.assert_array_equal(again.view("fc"), bound.view("fc"))
    with pytest.raises(WeightsError, match="are 831 bytes, but the program's slots take 832"):
        bind_blob(SLOTS, bound.blob[:-1])


def test_tied_copies_must_be_equal(checkpoint: Any, arrays: Any):
    bind(SLOTS, checkpoint(arrays | {"head": arrays["e"].copy()}))
    with pytest.raises(WeightsError, match="'e' and 'head' differ, but the model's config ties them"):
        bind(SLOTS, checkpoint(arrays | {"head": arrays["e"] + 1}))


HUGE = 1 << 60


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(
    ("slot", "message"),
    [
        (Slot("fc", "panels", (HUGE, 5), "fp32", (Source(("w",), (20, 5)),)), "slot 'fc' has the shape"),
        (Slot("fc", "panels", (20, HUGE), "fp32", (Source(("w",), (20, 5)),)), "slot 'fc' has the shape"),
        (Slot("fc", "panels", (100,), "fp32", (Source(("w",), (20, 5)),)), "slot 'fc' has the shape"),
        (Slot("fc", "panels", (-20, 5), "fp32", (Source(("w",), (-20, 5)),)), "slot 'fc' has the shape"),
        (Slot("fc", "panels", (5, 20), "fp32", (Source(("w",), (20, 5)),)), "slot 'fc' has the shape"),
        (Slot("fc", "rows", (HUGE, 5), "int8", (Source(("w",), (20, 5)),)), "slot 'fc' has the shape"),
        (Slot("fc", "flat", (HUGE,), "fp32", (Source(("b",), (3,)),)), "slot 'fc' has the shape"),
        (Slot("fc", "panels", (HUGE, 5), "fp32", (Source(("w",), (HUGE, 5)),)), "of another shape: w"),
        (Slot("fc", "panels", (HUGE, 5), "fp32", (Source(("none",), (HUGE, 5)),)), "are missing"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    checkpoint: Any, arrays: Any, tmp_path: Path, slot: Slot, message: str, kept: bool
):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(WeightsError, match=message):
            bind([slot], checkpoint(arrays), ignored=[".*"], cache=WeightCache(tmp_path) if kept else None)
    assert list(tmp_path.iterdir()) == []


def test_more_memory_than_there_is_is_one_line():
    with pytest.raises(WeightsError, match=r"model: not enough memory for the packed weights \(.* bytes\)"):
        cache.anonymous(1 << 62, "model")


def test_progress_reaches_the_end(checkpoint: Any, arrays: Any):
    seen: list[tuple[int, int]] = []
    bind(SLOTS, checkpoint(arrays), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) == 3
    assert {total for _, total in seen} == {832}


def test_a_second_bind_comes_from_the_cache_without_reading_a_tensor(checkpoint: Any, arrays: Any, tmp_path: Path):
    kept = WeightCache(tmp_path)
    first = bind(SLOTS, checkpoint(arrays), cache=kept)
    source = checkpoint(arrays)
    second = bind(SLOTS, source, cache=kept)
    assert (first.cached, second.cached, source.reads) == (False, True, 0)
    assert bytes(first.blob) == bytes(second.blob) == bytes(bind(SLOTS, source).blob)


@pytest.mark.parametrize("change", ["identity", "dtype", "names"])
def test_another_checkpoint_or_program_is_another_entry(checkpoint: Any, arrays: Any, tmp_path: Path, change: str):
    kept = WeightCache(tmp_path)
    bind(SLOTS, checkpoint(arrays), cache=kept)
    slots, source = list(SLOTS), checkpoint(arrays)
    if change == "identity":
        source = checkpoint(arrays, "2")
    elif change == "dtype":
        slots[1] = Slot("fc", "panels", (20, 5), "int8", SLOTS[1].sources)
    else:
        slots[0] = Slot("bias", "flat", (3,), "fp32", (Source(("b", "other"), (3,)),))
    assert not bind(slots, source, cache=kept).cached
    assert len(kept.entries()) == 2


def test_a_failed_bind_leaves_nothing_in_the_cache(checkpoint: Any, arrays: Any, tmp_path: Path):
    arrays["w"][3, 3] = np.nan
    with pytest.raises(WeightsError, match="'w' has NaN"):
        bind(SLOTS, checkpoint(arrays), cache=WeightCache(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("damage", ["short", "empty", "magic", "header", "zeros", "long"])
def test_a_damaged_entry_is_built_again(checkpoint: Any, arrays: Any, tmp_path: Path, damage: str):
    kept = WeightCache(tmp_path)
    good = bytes(bind(SLOTS, checkpoint(arrays), cache=kept).blob)
    (entry,) = kept.entries()
    raw = bytearray(entry.path.read_bytes())
    match damage:
        case "short":
            del raw[-100:]
        case "empty":
            raw.clear()
        case "magic":
            raw[0] ^= 1
        case "header":
            raw[40] ^= 1
        case "zeros":
            raw[4096:] = bytes(len(raw) - 4096)
        case _:
            raw += b"x"
    entry.path.write_bytes(raw)
    again = bind(SLOTS, checkpoint(arrays), cache=kept)
    assert not again.cached
    assert bytes(again.blob) == good
    assert bind(SLOTS, checkpoint(arrays), cache=kept).cached


@pytest.mark.parametrize("failing", ["posix_fallocate", "open", "mkdir"])
def test_a_cache_that_cannot_be_written_warns_once_and_packs_into_memory(
    checkpoint: Any, arrays: Any, tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if failing == "mkdir":
        (tmp_path / "weights").write_bytes(b"a file is in the way")
    else:
        monkeypatch.setattr(os, failing, fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bound = bind(SLOTS, checkpoint(arrays), cache=WeightCache(tmp_path))
    assert len(caught) == 1
    assert "packed weights cannot be kept" in str(caught[0].message)
    np.testing.assert_array_equal(bound.view("bias"), arrays["b"])
    assert list(tmp_path.rglob("*.tmp")) == []


def test_a_rename_that_fails_still_gives_the_weights(
    checkpoint: Any, arrays: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", fail)
    bound = bind(SLOTS, checkpoint(arrays), cache=WeightCache(tmp_path))
    np.testing.assert_array_equal(bound.view("bias"), arrays["b"])
    assert list((tmp_path / "weights").iterdir()) == []


def test_writers_at_the_same_time_all_get_the_weights(checkpoint: Any, arrays: Any, tmp_path: Path):
    wanted = bytes(bind(SLOTS, checkpoint(arrays)).blob)
    blobs: list[bytes] = []

    def work() -> None:
        for _ in range(5):
            blobs.append(bytes(bind(SLOTS, checkpoint(arrays), cache=WeightCache(tmp_path)).blob))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(blobs) == 20
    assert set(blobs) == {wanted}
    assert [path.suffix for path in (tmp_path / "weights").iterdir()] == [".weights"]


def filled(checkpoint: Any, arrays: Any, directory: Path) -> WeightCache:
    """Three entries, used one, two and three days ago."""
    kept = WeightCache(directory)
    for day in (1, 2, 3):
        before = {entry.key for entry in kept.entries()}
        bind(SLOTS, checkpoint(arrays, str(day)), cache=kept)
        (new,) = [entry for entry in kept.entries() if entry.key not in before]
        os.utime(new.path, (new.last_used, new.last_used - day * 86_400))
    return kept


def test_entries_say_what_they_are_the_last_used_first(checkpoint: Any, arrays: Any, tmp_path: Path):
    entries = filled(checkpoint, arrays, tmp_path).entries()
    assert [entry.source for entry in entries] == ["memory"] * 3
    assert [entry.bytes for entry in entries] == [4096 + 832] * 3
    assert [entry.last_used for entry in entries] == sorted((e.last_used for e in entries), reverse=True)


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({}, [0, 1, 2]),
        ({"older_than_days": 1.5}, [0]),
        ({"max_bytes": 10_000}, [0, 1]),
        ({"max_bytes": 0}, []),
        ({"everything": True}, []),
    ],
)
def test_pruning_removes_the_longest_unused(
    checkpoint: Any, arrays: Any, tmp_path: Path, limits: dict[str, Any], left: list[int]
):
    kept = filled(checkpoint, arrays, tmp_path)
    before = kept.entries()
    removed = kept.prune(**limits)
    assert [entry.key for entry in kept.entries()] == [before[number].key for number in left]
    assert {entry.key for entry in removed} == {entry.key for entry in before} - {before[n].key for n in left}


def test_using_an_entry_makes_it_the_last_used(checkpoint: Any, arrays: Any, tmp_path: Path):
    kept = filled(checkpoint, arrays, tmp_path)
    oldest = kept.entries()[-1].key
    assert bind(SLOTS, checkpoint(arrays, "3"), cache=kept).cached
    assert kept.entries()[0].key == oldest


def test_what_a_killed_writer_left_is_removed_after_a_day(checkpoint: Any, arrays: Any, tmp_path: Path):
    kept = filled(checkpoint, arrays, tmp_path)
    young, old = (kept.directory / (letter * 32 + ".tmp") for letter in "ab")
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    kept.prune()
    assert young.exists()
    assert not old.exists()


def test_pruning_a_mapped_entry_leaves_the_weights_usable(checkpoint: Any, arrays: Any, tmp_path: Path):
    kept = WeightCache(tmp_path)
    bound = bind(SLOTS, checkpoint(arrays), cache=kept)
    kept.prune(everything=True)
    np.testing.assert_array_equal(bound.view("bias"), arrays["b"])


def test_the_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("BOSSA_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.default_directory() == Path("/home/someone/.cache/bossa")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.default_directory() == Path("/x/bossa")
    monkeypatch.setenv("BOSSA_CACHE", "~/b")
    assert cache.default_directory() == Path("/home/someone/b")


def test_a_cache_hit_imports_nothing_large(tmp_path: Path):
    from safetensors.numpy import save_file

    save_file({"w": np.ones((4, 4), np.float32)}, tmp_path / "model.safetensors")
    program = (
        "import sys, bossa.weights as w\n"
        "slot = w.Slot('s', 'panels', (4, 4), 'fp32', (w.Source(('w',), (4, 4)),))\n"
        "bound = w.bind([slot], w.open_weights(sys.argv[1]), cache=w.WeightCache(sys.argv[1]))\n"
        "large = {'torch', 'transformers', 'safetensors', 'huggingface_hub', 'gguf', 'bossa.weights.torch_file'}\n"
        "print(bound.cached, sorted(large & set(sys.modules)))"
    )
    for wanted in ("False []", "True []"):
        result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
        assert result.stdout.strip() == wanted
