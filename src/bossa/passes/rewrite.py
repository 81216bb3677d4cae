"""What passes share: mapping over the views of an op, renaming values, counting uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count

from bossa.ir.program import (
    Attention,
    Embed,
    Expr,
    Linear,
    Loop,
    Map,
    Op,
    Program,
    Reduce,
    RowOp,
    Select,
    View,
    expressions,
    map_views,
    tables_of,
    views,
    weights_of,
)


def map_operands(op: RowOp, change: Callable[[View], View]) -> RowOp:
    """The op with every view that it reads replaced by another view."""

    def inside(expr: Expr) -> Expr:
        return map_views(expr, change)

    match op:
        case Map():
            return replace(op, expr=inside(op.expr))
        case Reduce():
            return replace(op, expr=inside(op.expr))
        case Linear():
            epilogue = None if op.epilogue is None else inside(op.epilogue)
            return replace(op, x=change(op.x), epilogue=epilogue)
        case Attention():
            return replace(op, q=change(op.q), k=change(op.k), v=change(op.v))
        case Select():
            return replace(op, x=change(op.x))
        case _:
            return op


def row_ops(program: Program) -> tuple[RowOp, ...]:
    """The ops of a program that has no loop yet."""
    ops = tuple(op for op in program.body if not isinstance(op, Loop))
    assert len(ops) == len(program.body), "this pass runs before layers are rolled"
    return ops


def with_weights(op: RowOp, name: Callable[[str], str]) -> RowOp:
    """The op with its weights renamed."""
    op = map_operands(op, lambda view: replace(view, name=name(view.name)) if view.space == "weight" else view)
    match op:
        case Linear():
            return replace(op, weight=name(op.weight), bias=None if op.bias is None else name(op.bias))
        case Attention() if op.sinks is not None:
            return replace(op, sinks=name(op.sinks))
        case Embed():
            return replace(op, weight=name(op.weight))
        case _:
            return op


def uses(ops: Iterable[Op], output: str) -> Counter[str]:
    """How many ops read each value; the program's output counts as one."""
    counts: Counter[str] = Counter([output])
    for op in ops:
        counts.update({view.name for expr in expressions(op) for view in views(expr) if view.space == "value"})
    return counts


def drop_dead(program: Program) -> Program:
    """Remove ops whose result nothing reads, and slots and tables that no op reads; number the layers that are left."""
    needed = {program.output}
    kept: list[Op] = []
    for op in reversed(row_ops(program)):
        if op.out.name in needed:
            kept.append(op)
            needed |= {view.name for expr in expressions(op) for view in views(expr) if view.space == "value"}
    layers = count()
    body = (replace(op, layer=next(layers)) if isinstance(op, Attention) else op for op in reversed(kept))
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
