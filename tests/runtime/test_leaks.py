"""Nothing is left of a program that was closed, or that nobody holds any more: no thread, file, map or library."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import bossa
from bossa.errors import RequestError
from bossa.language_model import LanguageModel
from bossa.pef import Pef
from bossa.targets.cpu.loader import load_library
from bossa.targets.cpu.toolchain import find_compiler

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what a process holds is read from /proc"),
]


def _held() -> tuple[int, int, list[str]]:
    """Threads, how many files are open, and maps of libraries and weights."""
    files = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name)]
    maps = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    ours = [place[5] for place in maps if len(place) > 5 and ("bossa-program" in place[5] or ".weights" in place[5])]
    return len(os.listdir("/proc/self/task")), len(files), ours


def _nothing_more_than(before: tuple[int, int, list[str]]) -> bool:
    """Whether nothing has come to what was held; a thread of another test may have ended meanwhile."""
    threads, *rest = _held()
    return threads <= before[0] and rest == list(before[1:])


def _is_open(name: str) -> bool:
    return Path(f"/proc/self/fd/{name}").is_symlink()


def _load(model: tuple[Pef, Path], **options: int) -> LanguageModel:
    pef, folder = model
    return bossa.load(pef, checkpoint=folder, threads=3, **options)


def test_a_closed_model_leaves_nothing_behind(model: tuple[Pef, Path], monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOSSA_CACHE", str(tmp_path))
    with _load(model) as first:  # what is made once: imports, the packed weights
        expected = first.generate([[1, 2, 3]])[0].token_ids
    before = _held()
    for _ in range(3):
        with _load(model) as again:
            assert again.generate([[1, 2, 3]])[0].token_ids == expected
            assert _held()[0] > before[0]
            assert _held()[2]
        assert _nothing_more_than(before)  # though the closed model is still there
    with pytest.raises(RequestError, match=r"^the model is closed: load it again$"):
        again.generate([[1]])
    again.close()


def test_a_model_that_is_let_go_leaves_nothing_behind_and_warns(
    model: tuple[Pef, Path], monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BOSSA_CACHE", str(tmp_path))
    _load(model).close()
    before = _held()
    held = [_load(model)]
    held[0].generate([[1, 2, 3]])
    with pytest.warns(ResourceWarning, match=r"the new PEF: a loaded model was dropped without close\(\): close it"):
        held.clear()
    assert _nothing_more_than(before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _load(model).close()


def test_libraries_that_are_let_go_are_unloaded_and_their_numbers_used_again(model: tuple[Pef, Path]) -> None:
    """Each has bytes of its own, as programs of other models have."""
    pef, _ = model
    data = bytes(pef.library(pef.manifest.targets[0]))
    before = _held()
    for number in range(40):
        library = load_library(data + number.to_bytes(8, "little"), "x.pef")
        assert library.bossa_abi() > 0
        assert _held()[1] == before[1] + 1
        del library
    assert _nothing_more_than(before)
    first, second = (load_library(data + bytes([number]), "x.pef") for number in range(2))
    assert first is not second
    assert first is load_library(data + b"\0", "x.pef")


def test_what_fails_to_load_leaves_nothing_behind(model: tuple[Pef, Path], monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOSSA_CACHE", str(tmp_path))
    _load(model).close()
    before = _held()
    with pytest.raises(RequestError, match="bytes of memory are too few"):
        _load(model, memory=1)
    _forget_errors()
    assert _nothing_more_than(before)
    with monkeypatch.context() as patch:
        patch.setattr("bossa.runtime.held.anonymous", _fails)
        with pytest.raises(RequestError, match=r"not enough memory for .* bytes of KV pages: allow less"):
            _load(model)
    _forget_errors()
    assert _nothing_more_than(before)
    with monkeypatch.context() as patch:
        patch.setattr("bossa.runtime.held.Held.pin", _fails)
        with pytest.raises(OSError, match="no"):
            _load(model)
    _forget_errors()
    assert _nothing_more_than(before)


def _forget_errors() -> None:
    """The traces of errors that were caught hold the frames of what failed, in circles."""
    gc.collect()


def _fails(*_: object) -> None:
    raise OSError("no")


THREADS = """
import os, sys, time, warnings
import bossa.runtime.held
from bossa.errors import BossaError
from bossa.pef import Pef
from bossa.runtime.program import LoadedProgram
from bossa.weights.bind import bind
from bossa.ir.slot import Slot
from bossa.weights.open import open_weights
bossa.runtime.held.default_threads = lambda: 4
pef = Pef.open(sys.argv[1])
def open_it(threads):
    weights = bind([Slot.from_json(dict(slot)) for slot in pef.manifest.slots], open_weights(sys.argv[2]))
    return LoadedProgram(pef, weights, threads=threads, pages=4, max_rows=8)
def more_than_before():
    # A thread that was joined, as those that packed were, is in the list for a moment more.
    until = time.monotonic() + 5
    while (more := len(os.listdir("/proc/self/task")) - before) and time.monotonic() < until:
        time.sleep(0.01)
    return more
before = len(os.listdir("/proc/self/task"))
try:
    open_it(3)
except BossaError as error:
    print(error)
print(more_than_before())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with open_it(None):
        print(more_than_before())
print(caught[0].message)
"""


NO_THREADS = """
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*main)(void*), void* arg) {
  size_t size = 0;
  if (attributes) pthread_attr_getstacksize(attributes, &size);
  if (size == (size_t)4 << 20) return EAGAIN;
  return ((int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*))dlsym(RTLD_NEXT, "pthread_create"))(
      thread, attributes, main, arg);
}
"""


def test_threads_that_the_system_does_not_start_are_one_line_and_by_default_fewer_compute(
    model: tuple[Pef, Path], tmp_path: Path
) -> None:
    """In a process where threads with the stack that the program's have are never to be had."""
    pef, folder = model
    pef.save(tmp_path / "x.pef")
    (tmp_path / "refuse.cc").write_text(NO_THREADS)
    command = [*find_compiler(), "-shared", "-fPIC", tmp_path / "refuse.cc", "-o", tmp_path / "refuse.so", "-ldl"]
    subprocess.run(command, check=True)
    result = subprocess.run(
        [sys.executable, "-c", THREADS, str(tmp_path / "x.pef"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LD_PRELOAD": str(tmp_path / "refuse.so")},
    )
    assert result.returncode == 0, result.stderr
    refusal, left, running, warning = result.stdout.splitlines()
    assert refusal.startswith("threads is 3, and the system cannot start that many")
    assert (left, running) == ("0", "0")
    assert warning == "the system cannot start 4 threads: running with 1"
