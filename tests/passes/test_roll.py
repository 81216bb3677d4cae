"""Rolling layers into a loop: what is alike, what is not, and what is left over."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bossa.ir.interpret import interpret
from bossa.ir.parse import parse_program
from bossa.ir.program import Loop, Program
from bossa.ir.text import print_program
from bossa.ir.verify import verify
from bossa.ops import Attention
from bossa.passes.roll import roll_layers


def _slot(name: str, layout: str, *shape: int) -> str:
    source = f'{{"names": ["{name}"], "shape": {list(shape)}, "transpose": false}}'
    return (
        f'slot {{"name": "{name}", "layout": "{layout}", "shape": {list(shape)}, "dtype": "fp32",'
        f' "sources": [{source}], "interleave": false}}'
    )


def _layers(
    count: int,
    window: Callable[[int], int] = lambda layer: 0,
    edit: Callable[[str, int], str] = lambda line, layer: line,
) -> Program:
    """A program of `count` residual layers of an attention and a linear."""
    lines = ['program "p" vocabulary 4 positions 16 output %y', _slot("e", "rows", 4, 4), _slot("h", "panels", 4, 4)]
    lines += [_slot(f"layers.{i}.w", "panels", 4, 4) for i in range(count)]
    lines.append("%x0[4] = embed $e tokens")
    for i in range(count):
        layer = [
            f"%a{i}[2,2] = attention %x{i}[2,2] %x{i}[2,2] %x{i}[2,2] layer {i} scale 0.5 window {window(i)}"
            " softcap 0.0",
            f'%l{i}[4] = linear %a{i}[4] $"layers.{i}.w" then add(#0[4], %x{i}[4])',
            f"%x{i + 1}[4] = map tanh(%l{i}[4])",
        ]
        lines += [edit(line, i) for line in layer]
    program = parse_program("\n".join([*lines, f"%y[4] = linear %x{count}[4] $h"]))
    verify(program)
    return program


def _rolled(program: Program) -> tuple[Program, Loop]:
    """The program after the pass, shown to compute the same bits, and its loop."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(slot.shape) for name, slot in program.slots.items()}
    result = roll_layers(program)
    verify(result)
    sequences = [[1, 2, 3, 0, 1, 2, 3], [3]]
    before, after = (interpret(p, weights, sequences, dtype=np.float64) for p in (program, result))
    np.testing.assert_array_equal(before, after)
    loops = [op for op in result.body if isinstance(op, Loop)]
    assert len(loops) == 1
    return result, loops[0]


def test_like_layers_become_one_loop() -> None:
    result, loop = _rolled(_layers(6))
    assert (loop.count, loop.layers, len(loop.body)) == (6, 1, 3)
    assert loop.weights == (("layers.*.w", tuple(f"layers.{i}.w" for i in range(6))),)
    assert len(result.body) == 3  # the embedding, the loop, the head


@pytest.mark.parametrize("count", [4, 5, 8])
def test_layers_that_alternate_between_two_kinds_roll_two_at_a_time(count: int) -> None:
    result, loop = _rolled(_layers(count, lambda layer: 3 if layer % 2 == 0 else 0))
    assert (loop.count, loop.layers) == (count // 2, 2)
    assert [op.window for op in loop.body if isinstance(op, Attention)] == [3, 0]
    assert len({formal for formal, _ in loop.weights}) == 2  # the two layers of an iteration keep their weights apart
    left = [op for op in result.body if isinstance(op, Attention)]
    assert len(left) == count % 2


def test_five_kinds_of_one_and_one_of_another_in_26_layers_leave_two_over() -> None:
    result, loop = _rolled(_layers(26, lambda layer: 0 if layer % 6 == 5 else 4))
    assert (loop.count, loop.layers) == (4, 6)
    assert sorted(op.layer for op in result.body if isinstance(op, Attention)) == [24, 25]


def test_a_first_layer_of_another_kind_stays_outside() -> None:
    result, loop = _rolled(_layers(5, lambda layer: 2 if layer == 0 else 0))
    assert loop.count == 4
    assert [op.layer for op in result.body if isinstance(op, Attention)] == [0]


def test_layers_that_differ_are_not_rolled() -> None:
    def own_scale(line: str, i: int) -> str:
        return line.replace("scale 0.5", f"scale 0.{i + 1}")

    program = _layers(3, edit=own_scale)
    assert roll_layers(program) == program


def test_a_weight_that_all_layers_share_stays_itself() -> None:
    text = print_program(_layers(3)).replace("map tanh(", "map add($shared[4], ")
    _, loop = _rolled(parse_program(text.replace("slot ", _slot("shared", "flat", 4) + "\nslot ", 1)))
    assert loop.count == 3
    assert [formal for formal, _ in loop.weights] == ["layers.*.w"]


def test_a_layer_whose_inside_is_read_later_ends_the_loop_before_it() -> None:
    late = "%z[4] = map add(%x5[4], %l1[4])\n%y[4] = linear %z[4]"
    _, loop = _rolled(parse_program(print_program(_layers(5)).replace("%y[4] = linear %x5[4]", late)))
    assert loop.count == 3


def test_two_values_may_go_round_a_loop() -> None:
    lines = ['program "p" vocabulary 4 positions 16 output %y', _slot("e", "rows", 4, 4), "%p0[4] = embed $e tokens"]
    lines.append("%q0[4] = map cos(%p0[4])")
    for i in range(4):
        lines += [
            f"%a{i}[1,4] = attention %p{i}[1,4] %q{i}[1,4] %p{i}[1,4] layer {i} scale 0.5 window 0 softcap 0.0",
            f"%p{i + 1}[4] = map add(%a{i}[4], %q{i}[4])",
            f"%q{i + 1}[4] = map sub(%a{i}[4], %p{i}[4])",
        ]
    _, loop = _rolled(parse_program("\n".join([*lines, "%y[4] = map add(%p4[4], %q4[4])"])))
    assert loop.count == 4
    assert len(loop.carried) == 2
