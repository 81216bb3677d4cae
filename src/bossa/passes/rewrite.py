"""What passes share: mapping over the views of an op, renaming values, counting uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count

from bossa.ir.program import Loop, Op, Program, RowOp, StatefulOp, reads, tables_of, weights_of


def straight_ops(program: Program) -> tuple[RowOp, ...]:
    """The ops of a program that has no loop yet."""
    ops = tuple(op for op in program.body if not isinstance(op, Loop))
    assert len(ops) == len(program.body), "this pass runs before layers are rolled"
    return ops


def with_weights(op: RowOp, name: Callable[[str], str]) -> RowOp:
    """The op with its weights renamed."""
    looks = op.map_operands(lambda view: replace(view, name=name(view.name)) if view.space == "weight" else view)
    return looks.rename_slots(name)


def uses(ops: Iterable[Op], output: str) -> Counter[str]:
    """How many ops read each value; the program's output counts as one."""
    counts: Counter[str] = Counter([output])
    for op in ops:
        counts.update(reads(op))
    return counts


def drop_dead(program: Program) -> Program:
    """Remove ops whose result nothing reads, and slots and tables that no op reads; number the layers that are left."""
    needed = {program.output}
    kept: list[Op] = []
    for op in reversed(straight_ops(program)):
        if op.out.name in needed:
            kept.append(op)
            needed |= reads(op)
    layers = count()
    body = (op.with_layer(next(layers)) if isinstance(op, StatefulOp) else op for op in reversed(kept))
    return keep_used(replace(program, body=tuple(body)))


def keep_used(program: Program) -> Program:
    """Remove slots and tables that no op reads."""
    names: set[str] = set()
    tables: set[str] = set()

    def visit(ops: Iterable[Op]) -> None:
        for op in ops:
            tables.update(tables_of(op))
            if isinstance(op, Loop):
                formal = dict(op.weights)
                for weight in weights_of(op):
                    names.update(formal.get(weight, (weight,)))
                visit(op.body)
            else:
                names.update(weights_of(op))

    visit(program.body)
    return replace(
        program,
        slots={name: slot for name, slot in program.slots.items() if name in names},
        tables={name: table for name, table in program.tables.items() if name in tables},
    )
