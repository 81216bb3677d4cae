"""Where values go: the arena reuses memory, and never while it is in use."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.ir.parse import parse_program
from bossa.ir.program import Program
from bossa.passes import optimize
from bossa.targets.cpu.arena import reads
from bossa.targets.cpu.emit.source import generate
from bossa.targets.cpu.plan import make_plan, pack_constants
from bossa.targets.cpu.sections import Repeat, fusion_groups, makes, ops_of
from support.programs import random_program


def _layers(count: int) -> Program:
    def slot(name: str, *shape: int) -> str:
        return (
            f'slot {{"name": "{name}", "layout": "{"rows" if name == "e" else "panels"}", "shape": {list(shape)},'
            f' "dtype": "fp32", "sources": [{{"names": ["{name}"], "shape": {list(shape)}, "transpose": false}}],'
            ' "interleave": false}'
        )

    lines = ['program "p" vocabulary 20 positions 16 output %y', slot("e", 20, 20), slot("h", 20, 20)]
    lines += [slot(f"l.{i}.{name}", 20, 20) for i in range(count) for name in ("up", "down")]
    lines.append("%x0[20] = embed $e tokens")
    for i in range(count):
        lines += [
            f"%a{i}[1,20] = attention %x{i}[1,20] %x{i}[1,20] %x{i}[1,20] layer {i} scale 0.5 window 0 softcap 0.0",
            f'%u{i}[20] = linear %a{i}[20] $"l.{i}.up" then relu(#0[20])',
            f'%x{i + 1}[20] = linear %u{i}[20] $"l.{i}.down" then add(#0[20], %x{i}[20])',
        ]
    return parse_program("\n".join([*lines, f"%y[20] = linear %x{count}[20] $h"]))


def test_the_arena_does_not_grow_with_the_layers() -> None:
    unrolled = [make_plan(_layers(count)).floats_per_row for count in (2, 12)]
    assert unrolled[0] == unrolled[1]
    assert make_plan(optimize(_layers(12))).floats_per_row <= unrolled[0]


def test_the_source_grows_with_the_layers_by_its_table_of_slots_alone() -> None:
    few, many = (generate(make_plan(optimize(_layers(count)))) for count in (4, 40))
    code = [[line for line in source.splitlines() if not line.startswith("    {")] for source in (few, many)]
    assert len(code[0]) == len(code[1])
    assert len(many.splitlines()) - len(few.splitlines()) == 36  # a line of the table for each


def test_a_page_holds_the_keys_and_values_of_every_layer() -> None:
    plan = make_plan(optimize(_layers(5)))
    page = 4 * 32 * (20 + 32)  # values are padded to panels of 16
    assert plan.state_offsets == tuple(i * page for i in range(5))
    assert plan.page_bytes == 5 * page


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_values_of_fused_sections_share_memory_only_row_by_row(seed: int) -> None:
    """Its workers are in different sections at the same time."""
    plan = make_plan(optimize(random_program(random.Random(seed))))
    bodies = [plan.sections, *(section.sections for section in plan.sections if isinstance(section, Repeat))]
    for group in (
        group for sections in bodies for group in fusion_groups(sections, plan.program.output) if len(group) > 1
    ):
        ops = [op for section in group if not isinstance(section, Repeat) for op in ops_of(section)]
        names = {name for op in ops for name in reads(op)}
        names |= {name for section in group if not isinstance(section, Repeat) for name in makes(section)}
        places = {plan.places[name] for name in names if name in plan.places}
        ends = sorted((place.offset, place.offset + place.stride) for place in places)
        assert all(end <= start for (_, end), (start, _) in pairwise(ends))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_constants_are_aligned_and_hold_the_tables(seed: int) -> None:
    program = optimize(random_program(random.Random(seed)))
    plan, data = make_plan(program), pack_constants(program)
    for name, table in program.tables.items():
        assert plan.constants[name] % 16 == 0
        stored = np.frombuffer(data, table.dtype, table.size, plan.constants[name] * 4)
        expected = table.T if name.startswith("bias") else table  # biases lie by head
        np.testing.assert_array_equal(stored, expected.reshape(-1))
