"""Recurrent state in a loaded program: what the library is given, and what is copied. The library here is in Python."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bossa.errors import PefError, RequestError, RuntimeFailure
from bossa.pef import Pef
from bossa.pef.signature import signature
from bossa.runtime import program as loaded
from bossa.runtime.program import LoadedProgram
from bossa.runtime.states import SequenceStates
from bossa.targets.cpu.loader import ABI, ABI_WITHOUT_STATE, Decoding, DecodingWithoutState, Step, StepWithoutState
from bossa.targets.cpu.toolchain import find_compiler
from bossa.weights.bind import bind_blob

MANIFEST: dict[str, Any] = {
    **{"bossa_version": "0", "name": "tiny", "architecture": "Tiny", "model_type": "tiny", "precision": "fp32"},
    **{"max_seq_length": 128, "batch_size": 4, "vocab_size": 5, "page_size": 32, "page_bytes": 0},
    **{"kv_precision": "fp32", "arena_bytes_per_row": 0, "targets": ["portable"], "slots": [], "constants": []},
    **{"ignored_tensors": [], "parameters": 0, "sections": [], "torch_version": "", "transformers_version": ""},
}
STATE = {"state_bytes": 64, "state_drafts": 2}
MEMBERS = dict.fromkeys(("program.json", "program.cc", "program.portable.so", "config.json"), b"{}")


class Library:
    """Adds each row's token to the first float of its sequence's slot, and notes what it was given."""

    def __init__(self, pef: Pef, abi: int = ABI) -> None:
        self.abi, self.name = abi, signature(pef.manifest.to_json()).encode()
        self.seen: list[Any] = []
        self.fails_at = 99

    def bossa_abi(self) -> int:
        return self.abi

    def bossa_signature(self) -> bytes:
        return self.name

    def bossa_finds_best(self) -> int:
        return 1

    def bossa_open(self, *_: Any) -> int:
        return 1

    def bossa_close(self, _: int) -> None:
        pass

    def bossa_step_run(self, _: int, reference: Any) -> int:
        self.step(reference._obj)
        return 0

    def step(self, step: Step) -> None:
        def ints(address: int, count: int) -> list[int]:
            return list((ctypes.c_int32 * count).from_address(address)) if address else []

        slots, replays, drafts = (ints(a, step.sequences) for a in (step.state_slots, step.replays, step.drafts))
        self.seen.append((slots, replays, drafts, (step.states or 0) % 64))
        starts = ints(step.starts, step.sequences + 1)
        for place, slot in enumerate(slots):
            state = ctypes.c_float.from_address(step.states + 64 * slot)
            state.value += sum(ints(step.tokens, step.rows)[starts[place] : starts[place + 1]])
        if step.logits:
            found = (ctypes.c_float * (5 * step.logit_count)).from_address(step.logits)
            for row in range(5 * step.logit_count):
                found[row] = ctypes.c_float.from_address(step.states + 64 * slots[0]).value if slots else 0

    def bossa_decode(self, _: int, reference: Any) -> int:
        decoding = reference._obj
        best = (ctypes.c_int32 * (decoding.most_steps * decoding.step.rows)).from_address(decoding.best)
        self.seen.append(type(decoding))
        for step in range(decoding.most_steps):
            best[step] = -1 if step == self.fails_at else step + 1
            if step == self.fails_at:
                return step
        return int(decoding.most_steps)


def opened(monkeypatch: pytest.MonkeyPatch, abi: int = ABI, **fields: int) -> tuple[LoadedProgram, Library]:
    pef = Pef.build(MANIFEST | fields, {**MEMBERS, "constants.bin": b""})
    library = Library(pef, abi)
    monkeypatch.setattr(loaded, "open_library", lambda _: ("portable", library))
    weights = bind_blob([], memoryview(bytearray()))
    return LoadedProgram(pef, weights, threads=1, pages=1, max_rows=8, state_slots=3), library


def ints(*values: Any) -> list[np.ndarray]:
    return [np.array(value, np.int32) for value in values]


ROW = ints([3], [0], [0, 1], [[0]], [0])


def test_a_step_is_given_the_slots_what_to_replay_and_what_is_guessed(monkeypatch):
    program, library = opened(monkeypatch, **STATE)
    with program:
        assert (program.state_bytes, program.state_drafts, program.state_slots, program.page_bytes) == (64, 2, 3, 0)
        arrays = ints([3, 4, 4], [0, 5, 6], [0, 1, 3], [[0], [0]], [0])
        assert program.step(*arrays, SequenceStates(*ints([2, 0], [0, 1], [0, 1])))[0, 0] == 3
        program.step_greedy(*arrays, SequenceStates(*ints([1, 2], [0, 0], [0, 0])))
    assert library.seen == [([2, 0], [0, 1], [0, 1], 0), ([1, 2], [0, 0], [0, 0], 0)]


def test_a_copied_slot_goes_on_by_itself(monkeypatch):
    program, _ = opened(monkeypatch, **STATE)

    def add(slot: int) -> float:
        return float(program.step(*ROW, SequenceStates(*ints([slot], [0], [0])))[0, 0])

    with program:
        assert [add(0), add(0), add(2)] == [3, 6, 3]  # slots are zero to begin with
        program.copy_state(0, 2)
        assert [add(2), add(2), add(0), add(1)] == [9, 12, 9, 3]
        with pytest.raises(AssertionError):
            program.copy_state(0, 3)
        with pytest.raises(AssertionError):
            add(3)
    with pytest.raises(RequestError, match="the program is closed"):
        program.copy_state(0, 1)


def test_a_program_without_recurrent_state_is_given_none(monkeypatch):
    program, library = opened(monkeypatch)
    with program:
        assert (program.state_bytes, program.state_drafts, program.state_slots) == (0, 0, 0)
        program.step(*ROW)
    assert library.seen == [([], [], [], 0)]


@pytest.mark.parametrize(("abi", "kind"), [(ABI, Decoding), (ABI_WITHOUT_STATE, DecodingWithoutState)])
def test_steps_of_decoding_are_given_as_the_librarys_interface_has_them(monkeypatch, abi, kind):
    program, library = opened(monkeypatch, abi)
    with program:
        assert program.decode_greedy(*ints([3], [0], [[0]]), 3, []).tolist() == [[1], [2], [3]]
    assert library.seen == [kind]


EARLIER = """
#include <stdint.h>
struct step {
  int32_t rows, sequences, max_blocks, logit_count;
  const void* pointers[5];
  float* logits;
  int32_t* best;
};
struct decoding {
  struct step step;
  int32_t *tokens, *positions, *best;
  const int32_t* ends;
  int32_t end_count, most_steps;
  int64_t nanoseconds;
};
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT int32_t bossa_abi() { return 4; }
EXPORT const char* bossa_signature() { return SIGNATURE; }
EXPORT int32_t bossa_finds_best() { return 1; }
EXPORT void bossa_pack() {}
EXPORT void* bossa_open(int32_t, int32_t, const void*, const float*, void* kv) { return kv; }
EXPORT int32_t bossa_pin(void*, const int32_t*, int32_t) { return 0; }
EXPORT int32_t bossa_step_run(void*, const struct step* step) { return step->best[0] = step->rows, 0; }
EXPORT int32_t bossa_decode(void*, const struct decoding* d) {
  for (int i = 0; i < d->most_steps; i++) d->best[i] = d->tokens[0] + d->end_count + i;
  return d->most_steps;
}
EXPORT void bossa_close(void*) {}
"""


def test_a_program_of_the_earlier_interface_runs(tmp_path: Path):
    (tmp_path / "x.cc").write_text(EARLIER)
    manifest = MANIFEST | {"targets": ["portable"]}
    name = signature(manifest)
    command = [
        *find_compiler(),
        "-shared",
        "-fPIC",
        f'-DSIGNATURE="{name}"',
        tmp_path / "x.cc",
        "-o",
        tmp_path / "x.so",
    ]
    subprocess.run(command, check=True)
    members = {**MEMBERS, "program.portable.so": (tmp_path / "x.so").read_bytes(), "constants.bin": b""}
    with LoadedProgram(
        Pef.build(manifest, members), bind_blob([], memoryview(bytearray())), threads=1, pages=1
    ) as program:
        assert program.step_greedy(*ROW).tolist() == [1]
        assert program.decode_greedy(*ints([3], [0], [[0]]), 3, [7, 8]).tolist() == [[5], [6], [7]]


def test_interfaces_differ_behind_the_members_that_they_share():
    assert [kind.tokens.offset for kind in (StepWithoutState, Step)] == [16, 16]
    assert [ctypes.sizeof(kind) for kind in (StepWithoutState, Step)] == [72, 104]
    assert [kind.tokens.offset for kind in (DecodingWithoutState, Decoding)] == [72, 104]


def test_a_later_step_without_a_token_is_an_error_where_state_has_moved(monkeypatch):
    """Elsewhere it ends the steps, and runs again alone."""
    states = SequenceStates(*ints([0], [0], [0]))
    program, library = opened(monkeypatch, **STATE)
    library.fails_at = 2
    with program, pytest.raises(RuntimeFailure, match="logits of row 0 of a step are not finite"):
        program.decode_greedy(*ints([3], [0], [[0]]), 5, [], states)
    program, library = opened(monkeypatch)
    library.fails_at = 2
    with program:
        assert program.decode_greedy(*ints([3], [0], [[0]]), 5, []).tolist() == [[1], [2]]


def test_a_program_of_other_state_than_the_manifest_has_is_refused(monkeypatch):
    other = Library(Pef.build(MANIFEST | STATE, {**MEMBERS, "constants.bin": b""}))
    for fields in ({}, STATE | {"state_bytes": 128}, STATE | {"state_drafts": 3}):
        pef = Pef.build(MANIFEST | fields, {**MEMBERS, "constants.bin": b""})
        monkeypatch.setattr(loaded, "open_library", lambda _: ("portable", other))
        with pytest.raises(PefError, match="do not agree on how memory is laid out"):
            LoadedProgram(pef, bind_blob([], memoryview(bytearray())), threads=1, pages=1, state_slots=1)
