"""What a row program must keep to: every name, shape, view and place that the passes and the generated code rely on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bossa.formats.registry import FORMATS
from bossa.ir import limits
from bossa.ir.program import Loop, Op, Program, StatefulOp, outputs, tables_of
from bossa.ir.scope import Scope
from bossa.ir.slot import Slot
from bossa.ir.text import show


def verify(program: Program) -> None:
    """Check the whole program.

    Raises:
        ProgramError: the first rule that is broken, and the op that breaks it.
    """
    limits.check(program)
    scope = Scope(program.name, program.vocab_size, program.max_seq_length, program.tables, dict(program.slots))
    scope.need(program.vocab_size >= 1 and program.max_seq_length >= 1, "a vocabulary or a length below 1")
    for name, table in program.tables.items():
        scope.place = f"table {name}"
        scope.need(name != "tokens", "the name is taken by the token ids")
        scope.need(table.dtype in (np.float32, np.int32), f"a table of {table.dtype}, not of float32 or int32")
        good = table.ndim > 0 and len(table) in (1, program.max_seq_length)
        scope.need(good, f"shape {list(table.shape)} has neither 1 nor {program.max_seq_length} positions")
    for name, slot in program.slots.items():
        scope.place = f"slot {name}"
        scope.need(name == slot.name, f"it is listed as {name} and named {slot.name}")
        scope.need(slot.layout == "flat" or len(slot.shape) == 2, f"layout {slot.layout} of shape {list(slot.shape)}")
        scope.need(slot.layout in FORMATS[slot.dtype].layouts, f"layout {slot.layout} in {slot.dtype}")
    for op in program.body:
        _op(scope, program, op)
    scope.place = "the program"
    layers = sorted(scope.layers)
    scope.need(layers == list(range(len(layers))), f"layers are {layers[:20]}")
    output = scope.values.get(program.output)
    if output is None:
        raise scope.refuse(f"its output %{program.output} is not defined")
    scope.need(output.size == program.vocab_size, f"its output has shape {list(output.shape)}, not [vocabulary]")


def _op(scope: Scope, program: Program, op: Op) -> None:
    if isinstance(op, Loop):
        scope.place = "a loop"
        _loop(scope, program, op)
        return
    scope.place = show(op)
    for name in tables_of(op):
        scope.need(name in program.tables, f"there is no table {name}")
    if isinstance(op, StatefulOp):
        scope.need(not scope.selected, f"{op.keyword} after the selection of rows")
    op.verify(scope)
    if isinstance(op, StatefulOp):
        scope.layers.append(op.layer)
    scope.define(op.out)


def _loop(scope: Scope, program: Program, op: Loop) -> None:
    scope.need(op.count >= 1 and not scope.selected, "a loop that runs never, or after the selection of rows")
    nested = any(isinstance(inner, Loop) or inner.selects for inner in op.body)
    scope.need(not nested, "a loop or a selection in a loop")
    layers = sum(isinstance(inner, StatefulOp) for inner in op.body)
    scope.need(op.layers == layers, f"it moves on by {op.layers} layers an iteration and has {layers}")
    outside = dict(scope.values)
    for carried in op.carried:
        init = outside.get(carried.init)
        if init is None:
            raise scope.refuse(f"it starts from %{carried.init}, which is not defined before it")
        shapes = {init.shape, carried.inner.shape, carried.result.shape}
        scope.need(len(shapes) == 1, f"%{carried.inner.name} changes its shape from iteration to iteration")
        scope.define(carried.inner)
    inside = replace(scope, slots=dict(scope.slots))
    for formal, actual in op.weights:
        inside.slots[formal] = _formal(scope, program, op, formal, actual)
    scope.need(len(dict(op.weights)) == len(op.weights), "two of its weights have one name")
    first = len(scope.layers)
    for inner in op.body:
        _op(inside, program, inner)
    body = scope.layers[first:]
    beside = sorted(body) == list(range(min(body, default=0), min(body, default=0) + layers))
    scope.need(beside, f"its layers {sorted(body)[:20]} do not follow each other")
    made = {value.name for inner in op.body for value in outputs(inner)}
    scope.layers += [layer + i * op.layers for i in range(1, op.count) for layer in body]
    for carried in op.carried:
        step = scope.values.get(carried.step)
        if step is None or step.shape != carried.inner.shape or carried.step not in made:
            raise scope.refuse(f"%{carried.step} does not go on as %{carried.inner.name}")
    scope.need(len({carried.step for carried in op.carried}) == len(op.carried), "a value goes on as two")
    scope.values.clear()
    scope.values.update(outside)
    for carried in op.carried:
        scope.define(carried.result)


def _formal(scope: Scope, program: Program, op: Loop, formal: str, actual: tuple[str, ...]) -> Slot:
    """The slot that stands for those of all iterations."""
    scope.need(len(actual) == op.count, f"weight {formal} has {len(actual)} slots for {op.count} iterations")
    scope.need(formal not in program.slots, f"weight {formal} has the name of a slot")
    slots = [scope.slot(name, "panels", "rows", "flat") for name in actual]
    alike = {(slot.layout, slot.shape, slot.dtype, slot.interleave, len(slot.sources)) for slot in slots}
    scope.need(len(alike) == 1, f"the slots of weight {formal} differ in more than their name")
    return slots[0]
