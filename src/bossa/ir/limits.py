"""`check` bounds a whole program; see `bounds` for what and why."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from bossa.ir.bounds import ELEMENTS, ITERATIONS, LAYERS, OPS, SLOT_ELEMENTS, SLOT_NUMBERS, WORK, Bounds
from bossa.ir.names import is_title
from bossa.ir.program import Loop, Op, Program, StatefulOp, expressions, outputs, weights_of


def check(program: Program) -> None:
    """Refuse what is too large, and names that are none.

    Raises:
        ProgramError: the first of them.
    """
    bounds = Bounds(program.name)
    bounds.need(is_title(program.name), "a program's name is one line of at most 255 letters that can be shown")
    for name in names_in(program):
        bounds.name(name)
    bounds.numbers("vocabulary and length", program.vocab_size, program.max_seq_length)
    bounds.need(program.vocab_size <= ELEMENTS, f"a vocabulary of {program.vocab_size}: at most {ELEMENTS} are known")
    for name, table in program.tables.items():
        bounds.place = f"table {name}"
        bounds.need(prod(table.shape[1:]) <= ELEMENTS, f"more than {ELEMENTS} numbers a position")
    for name, slot in program.slots.items():
        bounds.place = f"slot {name}"
        for shape in (slot.shape, *(source.shape for source in slot.sources)):
            bounds.shape(shape, SLOT_ELEMENTS, 0)
    bounds.place = "the program"
    bodies = [op.body if isinstance(op, Loop) else (op,) for op in program.body]
    bounds.need(sum(map(len, bodies)) + len(bodies) <= 2 * OPS, f"it has more than {OPS} ops")
    for op in program.body:
        _op(bounds, op, 1)
    bounds.place = "the program"
    layers = sum(
        isinstance(inner, StatefulOp) * (op.count if isinstance(op, Loop) else 1)
        for op, body in zip(program.body, bodies, strict=True)
        for inner in body
    )
    bounds.need(layers <= LAYERS, f"it has more than {LAYERS} layers that keep state")
    bounds.need(bounds.work <= WORK, f"a row takes more than {WORK} steps of pointwise work")


def _op(bounds: Bounds, op: Op, times: int) -> None:
    for value in outputs(op):
        bounds.place = f"%{value.name}"
        bounds.shape(value.shape, ELEMENTS)
    if isinstance(op, Loop):
        _loop(bounds, op)
        return
    bounds.work += times * op.bound(bounds)
    for expr in expressions(op):
        bounds.work += times * bounds.expr(expr) * prod(op.pointwise_domain())


def _loop(bounds: Bounds, op: Loop) -> None:
    bounds.place = "a loop"
    bounds.numbers("count and layers", op.count, op.layers)
    bounds.need(op.count <= ITERATIONS, f"{op.count} iterations, where {ITERATIONS} are the most")
    for carried in op.carried:
        bounds.shape(carried.inner.shape, ELEMENTS)
        bounds.work += op.count * carried.inner.size
    for inner in op.body:
        bounds.place = "a loop"
        bounds.need(not isinstance(inner, Loop), "a loop in a loop")
        _op(bounds, inner, max(op.count, 1))
    bounds.place = "a loop"
    read = {name for inner in op.body for name in weights_of(inner)}
    bounds.need(op.count * len(read) <= SLOT_NUMBERS, f"{op.count} iterations of {len(read)} weights are too many")


def names_in(program: Program) -> Iterator[object]:
    """Every name in a program but its own and those in expressions, with repeats."""
    yield program.output
    yield from program.tables
    for name, slot in program.slots.items():
        yield name
        yield slot.name
        for source in slot.sources:
            yield from source.names
    yield from _of_ops(program.body)


def _of_ops(ops: tuple[Op, ...]) -> Iterator[object]:
    for op in ops:
        yield from (value.name for value in outputs(op))
        if isinstance(op, Loop):
            for carried in op.carried:
                yield from (carried.init, carried.inner.name, carried.step)
            for formal, actual in op.weights:
                yield formal
                yield from actual
            yield from _of_ops(tuple(inner for inner in op.body if not isinstance(inner, Loop)))
        else:
            yield from (*op.slot_names(), *op.table_names())
