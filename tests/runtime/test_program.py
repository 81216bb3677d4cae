"""A loaded program: what it checks, and what it gives back."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bossa.errors import PefError, RequestError, RuntimeFailure
from bossa.ir.slot import Slot
from bossa.pef import Pef
from bossa.runtime.program import LoadedProgram
from bossa.targets.cpu import features as cpu
from bossa.targets.cpu.loader import check, load_library
from bossa.weights.bind import bind
from bossa.weights.open import open_weights
from support import zoo

pytestmark = pytest.mark.end_to_end


def _open(model: tuple[Pef, Path], **options: Any) -> LoadedProgram:
    pef, folder = model
    weights = bind([Slot.from_json(dict(slot)) for slot in pef.manifest.slots], open_weights(folder))
    return LoadedProgram(pef, weights, **{"threads": 1, "pages": 4, "max_rows": 8} | options)


def _step(
    program: LoadedProgram, tokens: list[int], positions: list[int], pages: list[int], rows: list[int]
) -> np.ndarray:
    arrays = (tokens, positions, [0, len(tokens)], [pages], rows)
    return program.step(*(np.asarray(array, np.int32) for array in arrays)).copy()  # good until the next step


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system cannot pin threads to CPUs")
def test_threads_stay_on_the_cpus_that_are_named_and_give_the_same_bits(model: tuple[Pef, Path]) -> None:
    everywhere = os.sched_getaffinity(0)
    cpus = sorted(everywhere)[-2:]
    with _open(model) as program:
        expected = _step(program, [3, 4, 5], [0, 1, 2], [0, 1], [0, 1, 2])
    before = set(os.listdir("/proc/self/task"))
    try:
        with _open(model, threads=None, cpus=cpus) as program:
            np.testing.assert_array_equal(_step(program, [3, 4, 5], [0, 1, 2], [0, 1], [0, 1, 2]), expected)
            own = [int(task) for task in set(os.listdir("/proc/self/task")) - before]
            assert os.sched_getaffinity(0) == {cpus[0]}
            own_cpus = [os.sched_getaffinity(task) for task in own]
            assert all({cpu} in own_cpus for cpu in cpus[1:])
    finally:
        os.sched_setaffinity(0, everywhere)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system cannot pin threads to CPUs")
def test_cpus_that_are_not_there_or_do_not_match_the_threads_are_refused(model: tuple[Pef, Path]) -> None:
    usable = min(os.sched_getaffinity(0))
    for options, message in (
        ({"cpus": [usable, 99_999]}, "cpus names 99999, and this process may run on"),
        ({"cpus": []}, "cpus names none, and this process may run on"),
        ({"cpus": [usable], "threads": 3}, "threads is 3, and cpus names 1: leave one of them out"),
    ):
        with pytest.raises(RequestError, match=message):
            _open(model, **({"threads": None} | options))


def test_pages_may_lie_anywhere_and_rows_be_chosen(model: tuple[Pef, Path]) -> None:
    with _open(model) as program:
        whole = _step(program, [3, 4, 5], [0, 1, 2], [0, 1], [0, 1, 2])
        assert whole.shape == (3, zoo.VOCABULARY)
        some = _step(program, [3, 4, 5], [0, 1, 2], [3, 2], [2, 0])
        np.testing.assert_array_equal(some, whole[[2, 0]])
        nothing = _step(program, [3, 4], [0, 1], [1, 2], [])
        assert nothing.shape == (0, zoo.VOCABULARY)
        np.testing.assert_array_equal(_step(program, [5], [2], [1, 2], [0])[0], whole[2])


def test_the_likeliest_tokens_are_those_of_the_logits(model: tuple[Pef, Path]) -> None:
    with _open(model, threads=2) as program:
        arrays = [np.asarray(array, np.int32) for array in ([3, 4, 5], [0, 1, 2], [0, 3], [[0]], [0, 2])]
        np.testing.assert_array_equal(program.step_greedy(*arrays), program.step(*arrays).argmax(axis=1))


def _decode(program: LoadedProgram, most_steps: int, ends: list[int]) -> list[list[int]]:
    """Of two sequences, whose first tokens are 3 and 4."""
    tokens, positions, pages = (np.asarray(array, np.int32) for array in ([3, 4], [0, 0], [[0, 2], [3, 1]]))
    found = program.decode_greedy(tokens, positions, pages, most_steps, ends)
    assert tokens.tolist() == [3, 4]
    assert positions.tolist() == [0, 0]
    return found.tolist()


@pytest.mark.parametrize("threads", [1, 3])
def test_steps_of_decoding_that_run_one_after_the_other_bring_what_they_bring_alone(
    model: tuple[Pef, Path], threads: int
) -> None:
    """Past the end of a page, which has 32 positions; up to an end token, and it too."""
    with _open(model, threads=threads) as program:
        tokens, expected = np.array([3, 4], np.int32), []
        rows, pages = np.arange(3, dtype=np.int32), np.array([[0, 2], [3, 1]], np.int32)
        for position in range(40):
            tokens = program.step_greedy(tokens, np.full(2, position, np.int32), rows, pages, rows[:2])
            expected.append(tokens.tolist())
        got = _decode(program, 40, [])
        assert 1 <= len(got) <= 40  # fewer on a machine that is busy
        assert got == expected[: len(got)]
        assert _decode(program, 1, []) == expected[:1]
        end = expected[2][1]
        first = next(step for step, found in enumerate(expected) if end in found)
        assert _decode(program, 40, [end, zoo.VOCABULARY + 1]) == expected[: first + 1]


def test_token_ids_outside_the_vocabulary_are_refused(model: tuple[Pef, Path]) -> None:
    with _open(model) as program:
        for token in (-1, zoo.VOCABULARY):
            with pytest.raises(RequestError, match=f"token id {token} is outside the vocabulary of {zoo.VOCABULARY}"):
                _step(program, [3, token], [0, 1], [0], [1])


def test_more_rows_than_it_was_opened_for_are_refused(model: tuple[Pef, Path]) -> None:
    with _open(model, max_rows=2) as program, pytest.raises(RuntimeFailure, match="more rows than it was opened for"):
        _step(program, [3, 4, 5], [0, 1, 2], [0], [2])
    check(0)


def test_a_closed_program_says_so_and_closes_twice(model: tuple[Pef, Path]) -> None:
    program = _open(model)
    program.close()
    program.close()
    with pytest.raises(RequestError, match="the program is closed"):
        _step(program, [3], [0], [0], [0])


def test_settings_out_of_range_are_refused(model: tuple[Pef, Path]) -> None:
    with pytest.raises(RequestError, match="threads must be a whole number from 1, and is 0"):
        _open(model, threads=0)


def test_a_program_for_another_cpu_is_refused_by_name(model: tuple[Pef, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bossa.runtime.program.best_target", lambda targets: None)
    with pytest.raises(PefError, match=r"compiled for .*, which this CPU does not run: compile"):
        _open(model)


def test_what_is_no_library_is_refused() -> None:
    with pytest.raises(PefError, match=r"^x\.pef: its program does not load on this machine"):
        load_library(b"not a library", "x.pef")


def test_one_library_is_loaded_once(model: tuple[Pef, Path]) -> None:
    pef, _ = model
    target = pef.manifest.targets[0]
    assert load_library(pef.library(target), "a") is load_library(bytes(pef.library(target)), "b")


def test_the_fastest_target_that_the_cpu_runs_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    v3 = frozenset({"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"})
    monkeypatch.setattr(cpu, "host_features", lambda: v3)
    assert cpu.best_target(["portable", "x86-64-v4", "x86-64-v3"]) == "x86-64-v3"
    assert cpu.best_target(["x86-64-v4", "aarch64"]) is None
    amx = v3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni", "amx_tile", "amx_int8"}
    monkeypatch.setattr(cpu, "host_features", lambda: amx)
    for granted, best in ((True, "x86-64-v4-amx"), (False, "x86-64-v4-vnni")):
        monkeypatch.setattr(cpu, "may_use_tiles", lambda granted=granted: granted)
        assert cpu.best_target(["x86-64-v3", "x86-64-v4-vnni", "x86-64-v4-amx"]) == best
    monkeypatch.setattr(cpu, "host_features", frozenset)
    assert cpu.best_target(["portable", "x86-64-v3"]) == "portable"
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert cpu.best_target(["portable", "aarch64"]) == "aarch64"
