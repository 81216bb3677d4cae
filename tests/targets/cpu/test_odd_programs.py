"""Native code of programs that no model gives, but that pass the verifier: right to the interpreter, on any stack."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from bossa.errors import ProgramError
from bossa.ir.interpret import interpret
from bossa.ir.parse import parse_program
from bossa.ir.program import Program
from bossa.ir.runnable import check_runnable
from bossa.targets.cpu.arena import LOCAL_FLOATS
from bossa.targets.cpu.emit import source
from bossa.targets.cpu.emit.source import generate
from bossa.targets.cpu.plan import make_plan
from bossa.targets.cpu.toolchain import host_target
from support.native import Native, build
from support.programs import random_weights
from support.sound import slot_line

TOLERANCE = 2e-6
"""As of the native programs of `test_native.py`."""
SMALL_STACK = 128 << 10
"""Bytes of stack: half of what a tile of attention takes."""

WIDE = LOCAL_FLOATS * 2
ODD = "\n".join([
    'program "odd" vocabulary 6 positions 64 output %"p"',
    slot_line("e", "rows", 6, 32),
    slot_line("a.b", "flat", WIDE),
    slot_line("a_b", "flat", 32),
    slot_line("h", "panels", 6, 32),
    slot_line("one", "panels", 32, 32),
    slot_line("wide", "flat", 1),
    '%"x.y"[32] = embed $e tokens',
    '%x_y[32] = map sub(%"x.y"[32], neg(neg($a_b[32])))',
    "%int[1,32] = attention %x_y[1,32] %x_y[1,32] %x_y[1,32] layer 0 scale 0.2 window 0 softcap 0.0",
    "%dead[1,32] = attention %x_y[1,32] %x_y[1,32] %x_y[1,32] layer 1 scale 0.2 window 0 softcap 0.0",
    "%unread[32] = linear %x_y[32] $one",
    f'%w[{WIDE}] = map tanh($"a.b"[{WIDE}])',
    f"%share[{WIDE}] = map neg(neg(mul(%w[{WIDE}], %int[{WIDE}|0])))",
    f"%t[1] = reduce mean 1 [1,{WIDE}] %share[1,{WIDE}]",
    "%t_lanes[1] = reduce max 1 [1,32] %x_y[1,32]",
    "%slots[32] = map add(add(%int[32], %t[32|0]), %t_lanes[32|0])",
    "loop 1 layers 1 {",
    "carry %slots as %i[32] next %s0 result %row[32]",
    'weight "one*" is ["one"]',
    "%j[1,32] = attention %i[1,32] %i[1,32] %i[1,32] layer 2 scale 0.2 window 0 softcap 0.0",
    '%s0[32] = linear %j[32] $"one*"',
    "}",
    "%n[32] = select %row[32]",
    '%"p"[6] = linear %n[32] $h',
])  # fmt: skip
"""Names like keywords, like variables of the code and like each other; values wider than a stack and of no use; a loop
of one iteration; the negative of a negative."""
SEQUENCES = [[1, 2, 3, 4, 5] * 5, [0, 1]]


@pytest.fixture(scope="module")
def odd() -> Program:
    program = parse_program(ODD)
    check_runnable(program)
    return program


@pytest.fixture(scope="module")
def native(odd: Program, tmp_path_factory: pytest.TempPathFactory) -> Native:
    (built,) = build([odd], tmp_path_factory.mktemp("odd"), host_target())
    return built


@pytest.fixture
def small_stacks() -> Iterator[None]:
    before = threading.stack_size(SMALL_STACK)
    yield
    threading.stack_size(before)


@pytest.mark.end_to_end
def test_an_odd_program_is_right_and_runs_on_a_thread_with_a_small_stack(
    odd: Program, native: Native, small_stacks: None
) -> None:
    weights = random_weights(odd)
    expected = interpret(odd, weights, SEQUENCES, dtype=np.float64)
    got = native.run(weights, SEQUENCES)
    assert np.abs(got - expected).max() < TOLERANCE * max(1.0, np.abs(expected).max())
    elsewhere: list[NDArray[np.float32]] = []

    def run() -> None:
        elsewhere.extend(native.run(weights, SEQUENCES, threads=threads) for threads in (1, 2))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(elsewhere) == 2
    for logits in elsewhere:
        np.testing.assert_array_equal(logits, got)


def test_what_is_too_wide_for_a_stack_lies_in_the_arena(odd: Program) -> None:
    plan = make_plan(odd)
    assert {"w", "share", "dead", "unread"} <= plan.places.keys()
    assert "t_lanes" not in plan.places
    assert f"[{WIDE}]" not in "\n".join(line for line in generate(plan).split("\n") if "alignas" in line)


def test_a_source_that_would_be_too_long_is_refused(odd: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(generate(make_plan(odd)))
    monkeypatch.setattr(source, "LARGEST", size // 10)
    with pytest.raises(ProgramError, match="its source would be longer than"):
        generate(make_plan(odd))
