"""What a row program must keep to: every name, shape, view and place that the passes and the generated code rely on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite, prod

import numpy as np

from bossa.errors import ProgramError, shown
from bossa.formats.geometry import PANEL
from bossa.formats.precision import PANELS_ALONE
from bossa.ir import limits
from bossa.ir.functions import FUNCTIONS
from bossa.ir.program import (
    Apply,
    Attention,
    Cat,
    Const,
    Embed,
    Expr,
    Linear,
    Loop,
    Map,
    Op,
    Program,
    Reduce,
    Select,
    Shape,
    Value,
    View,
    outputs,
    tables_of,
)
from bossa.ir.slot import Slot
from bossa.ir.text import show


def verify(program: Program) -> None:
    """Check the whole program.

    Raises:
        ProgramError: the first rule that is broken, and the op that breaks it.
    """
    limits.check(program)
    _Scope(program, dict(program.slots)).check()


@dataclass
class _Scope:
    """What is known at one point of the program."""

    program: Program
    slots: dict[str, Slot]  # formal weights of the loop included
    values: dict[str, Value] = field(default_factory=dict)  # readable here
    names: set[str] = field(default_factory=set)  # ever defined
    layers: list[int] = field(default_factory=list)
    selected: bool = False
    place: str = "the program"

    def refuse(self, why: str) -> ProgramError:
        text = self.place if len(self.place) <= 160 else f"{self.place[:157]}..."
        why = why if len(why) <= 240 else f"{why[:237]}..."
        return ProgramError(f"{shown(self.program.name)[:80]}: {text}: {why}")

    def need(self, holds: bool, why: str) -> None:
        if not holds:
            raise self.refuse(why)

    # -- the whole ------------------------------------------------------------------------------------------------

    def check(self) -> None:
        program = self.program
        self.need(program.vocab_size >= 1 and program.max_seq_length >= 1, "a vocabulary or a length below 1")
        for name, table in program.tables.items():
            self.place = f"table {name}"
            self.need(name != "tokens", "the name is taken by the token ids")
            self.need(table.dtype in (np.float32, np.int32), f"a table of {table.dtype}, not of float32 or int32")
            good = table.ndim > 0 and len(table) in (1, program.max_seq_length)
            self.need(good, f"shape {list(table.shape)} has neither 1 nor {program.max_seq_length} positions")
        for name, slot in program.slots.items():
            self.place = f"slot {name}"
            self.need(name == slot.name, f"it is listed as {name} and named {slot.name}")
            self.need(
                slot.layout == "flat" or len(slot.shape) == 2, f"layout {slot.layout} of shape {list(slot.shape)}"
            )
            known = slot.layout == "panels" or slot.dtype == "fp32"
            known = known or (slot.layout == "rows" and slot.dtype not in PANELS_ALONE)
            self.need(known, f"layout {slot.layout} in {slot.dtype}")
        for op in program.body:
            self.op(op)
        self.place = "the program"
        layers = sorted(self.layers)
        self.need(layers == list(range(len(layers))), f"attention layers are {layers[:20]}")
        output = self.values.get(program.output)
        if output is None:
            raise self.refuse(f"its output %{program.output} is not defined")
        self.need(output.size == program.vocab_size, f"its output has shape {list(output.shape)}, not [vocabulary]")

    def op(self, op: Op) -> None:
        self.place = "a loop" if isinstance(op, Loop) else show(op)
        for name in () if isinstance(op, Loop) else tables_of(op):
            self.need(name in self.program.tables, f"there is no table {name}")
        match op:
            case Embed():
                self.embed(op)
            case Linear():
                self.linear(op)
            case Map():
                self.expr(op.expr, op.out.shape)
            case Reduce():
                self.need(1 <= op.axes <= len(op.domain), f"{op.axes} axes of the domain {list(op.domain)}")
                self.need(op.out.shape == op.domain[: len(op.domain) - op.axes], "its shape is not what is left")
                self.expr(op.expr, op.domain)
            case Attention():
                self.attention(op)
            case Select():
                self.need(not self.selected, "rows are selected twice")
                x = self.value(op.x)
                self.need(
                    op.x.identity_of(x.size) and op.out.size == x.size,
                    "a selection of something else than a whole value",
                )
                self.selected = True
                self.values.clear()  # what follows has other rows
            case Loop():
                self.loop(op)
                return
        self.define(op.out)

    def define(self, value: Value) -> None:
        self.need(value.name not in self.names, f"%{value.name} is defined twice")
        self.need(all(extent >= 1 for extent in value.shape), f"%{value.name} has an empty axis")
        self.names.add(value.name)
        self.values[value.name] = value

    # -- operands -------------------------------------------------------------------------------------------------

    def value(self, view: View) -> Value:
        self.need(view.space == "value", "an operand that must be a value is a weight or a table")
        known = self.values.get(view.name)
        if known is None:
            at_all = view.name in self.names
            why = "has the rows of before the selection, or is inside a loop" if at_all else "is not defined before it"
            raise self.refuse(f"%{view.name} {why}")
        return known

    def slot(self, name: str, *layouts: str) -> Slot:
        slot = self.slots.get(name)
        if slot is None:
            raise self.refuse(f"there is no slot {name}")
        self.need(slot.layout in layouts, f"slot {name} has the layout {slot.layout}, not {' or '.join(layouts)}")
        return slot

    def flat(self, name: str, size: int) -> None:
        shape = self.slot(name, "flat").shape
        self.need(prod(shape) == size, f"slot {name} of shape {list(shape)} has not {size} elements")

    def view(self, view: View) -> None:
        """In bounds of what it looks at."""
        match view.space:
            case "value":
                size = self.value(view).size
            case "weight":
                size = prod(self.slot(view.name, "flat").shape)
            case "table":
                table = self.program.tables[view.name]
                self.need(table.dtype == np.float32, f"table {view.name} of integers is read as an operand")
                size = prod(table.shape[1:])
            case _:
                raise self.refuse("#, the sums of a linear, are read outside its epilogue")
        self.need(len(view.strides) == len(view.shape), f"{view.name}: there is not one stride for each axis")
        sound = view.offset >= 0 and min(view.strides, default=0) >= 0 and min(view.shape, default=1) >= 1
        last = view.offset + sum((extent - 1) * stride for extent, stride in zip(view.shape, view.strides, strict=True))
        self.need(sound and last < size, f"a view of {view.name} reaches element {last} of {size}")

    def expr(self, expr: Expr, domain: Shape) -> None:
        match expr:
            case View():
                self.view(expr)
                self.need(expr.shape == domain, f"a view of shape {list(expr.shape)} in the domain {list(domain)}")
            case Apply():
                self.function(expr)
                for arg in expr.args:
                    self.expr(arg, domain)
            case Cat():
                self.need(0 <= expr.axis < len(domain), f"a join along axis {expr.axis} of {list(domain)}")
                fits = len(expr.sizes) == len(expr.parts) and min(expr.sizes, default=0) >= 1
                self.need(fits, "a join whose sizes do not fit")
                extent = domain[expr.axis]
                self.need(sum(expr.sizes) == extent, f"a join of {list(expr.sizes)} along an axis of {extent}")
                for part, size in zip(expr.parts, expr.sizes, strict=True):
                    self.expr(part, (*domain[: expr.axis], size, *domain[expr.axis + 1 :]))
            case Const():
                pass

    def function(self, expr: Apply) -> None:
        known = FUNCTIONS.get(expr.function)
        if known is None:
            raise self.refuse(f"there is no function {expr.function}")
        self.need(len(expr.args) == known.arity, f"{expr.function} of {len(expr.args)} arguments, not {known.arity}")

    # -- ops ------------------------------------------------------------------------------------------------------

    def embed(self, op: Embed) -> None:
        self.need(not self.selected or op.index != "tokens", "an embedding of tokens after the selection of rows")
        rows, features = self.slot(op.weight, "rows", "panels").shape
        self.need(op.out.size == features, f"rows of {features} do not fill {list(op.out.shape)}")
        if op.index == "tokens":
            self.need(rows >= self.program.vocab_size, f"{rows} rows for a vocabulary of {self.program.vocab_size}")
            return
        table = self.program.tables[op.index]
        self.need(
            table.dtype == np.int32 and table[0].size == 1, f"table {op.index} has not one whole number a position"
        )
        self.need(int(table.min()) >= 0 and int(table.max()) < rows, f"table {op.index} points outside the {rows} rows")

    def linear(self, op: Linear) -> None:
        self.value(op.x)
        self.view(op.x)
        self.need(bool(op.x.shape) and op.x.contiguous, "the input of a linear is not contiguous")
        slot = self.slot(op.weight, "panels")
        outputs, inputs = slot.shape
        self.need(op.x.shape[-1] == inputs, f"{op.x.shape[-1]} features meet a weight of {outputs} by {inputs}")
        groups, width = prod(op.x.shape[:-1]), outputs // max(op.parts, 1)
        self.need(op.out.size == groups * width, f"{groups} times {width} outputs do not fill {list(op.out.shape)}")
        if op.bias is not None:
            self.need(op.parts == 1, "a linear of several parts has its biases in its epilogue")
            self.flat(op.bias, outputs)
        self.need(op.parts >= 1, f"{op.parts} parts")
        self.need((op.parts > 1) == slot.interleave, "parts and an interleaved weight go together")
        if op.parts > 1:
            self.need(len(slot.sources) == op.parts, f"{op.parts} parts of {len(slot.sources)} sources")
            self.need(width % PANEL == 0 and outputs == op.parts * width, f"parts that are not whole panels of {PANEL}")
            self.need(op.epilogue is not None, "parts need an epilogue that joins them")
        if op.epilogue is not None:
            self.need(groups == 1 and op.out.shape == (width,), "an epilogue needs one axis of outputs")
            self.epilogue(op.epilogue, op)

    def epilogue(self, expr: Expr, op: Linear) -> None:
        """An expression that is computed output by output."""
        match expr:
            case View(space="acc"):
                self.need(expr.name in map(str, range(op.parts)), f"there is no part #{expr.name}")
                whole = expr.shape == op.out.shape and expr.identity_of(op.out.size)
                self.need(whole, f"#{expr.name} is read other than element by element")
            case View():
                self.expr(expr, op.out.shape)
                fits = expr.strides[0] in (0, 1) or op.out.size == 1
                self.need(fits, f"the epilogue reads {expr.name} other than element by element")
            case Apply():
                self.function(expr)
                for arg in expr.args:
                    self.epilogue(arg, op)
            case Cat():
                raise self.refuse("a join in an epilogue")
            case Const():
                pass

    def attention(self, op: Attention) -> None:
        self.need(not self.selected, "attention after the selection of rows")
        for view in (op.q, op.k, op.v):
            self.value(view)
            self.view(view)
            good = len(view.shape) == 2 and (view.strides[1] == 1 or view.shape[1] == 1)
            self.need(good, f"%{view.name} is not read as [heads, features] with features side by side")
        (heads, features), (groups, key), (value_groups, width) = op.q.shape, op.k.shape, op.v.shape
        self.need(features == key, f"queries of {features} features meet keys of {key}")
        self.need(heads % groups == 0 and groups == value_groups, f"{heads} heads over {groups} and {value_groups}")
        self.need(op.out.size == heads * width, f"{heads} heads of {width} do not fill {list(op.out.shape)}")
        sound = isfinite(op.scale) and isfinite(op.softcap) and op.softcap >= 0
        self.need(sound and op.window >= 0, "a scale, cap or window out of range")
        if op.bias is not None:
            table = self.program.tables[op.bias]
            good = table.dtype == np.float32 and table.shape == (self.program.max_seq_length, heads)
            self.need(good, f"the bias {op.bias} has shape {list(table.shape)}, not [positions, heads]")
        if op.sinks is not None:
            self.flat(op.sinks, heads)
        self.layers.append(op.layer)

    def loop(self, op: Loop) -> None:
        self.need(op.count >= 1 and not self.selected, "a loop that runs never, or after the selection of rows")
        self.need(not any(isinstance(inner, (Loop, Select)) for inner in op.body), "a loop or a selection in a loop")
        layers = sum(isinstance(inner, Attention) for inner in op.body)
        self.need(op.layers == layers, f"it moves on by {op.layers} layers an iteration and has {layers}")
        outside = dict(self.values)
        for carried in op.carried:
            init = outside.get(carried.init)
            if init is None:
                raise self.refuse(f"it starts from %{carried.init}, which is not defined before it")
            shapes = {init.shape, carried.inner.shape, carried.result.shape}
            self.need(len(shapes) == 1, f"%{carried.inner.name} changes its shape from iteration to iteration")
            self.define(carried.inner)
        inside = replace(self, slots=dict(self.slots))
        for formal, actual in op.weights:
            inside.slots[formal] = self.formal(op, formal, actual)
        self.need(len(dict(op.weights)) == len(op.weights), "two of its weights have one name")
        first = len(self.layers)
        for inner in op.body:
            inside.op(inner)
        body = self.layers[first:]
        beside = sorted(body) == list(range(min(body, default=0), min(body, default=0) + layers))
        self.need(beside, f"its attention layers {sorted(body)[:20]} do not follow each other")
        made = {value.name for inner in op.body for value in outputs(inner)}
        self.layers += [layer + i * op.layers for i in range(1, op.count) for layer in body]
        for carried in op.carried:
            step = self.values.get(carried.step)
            if step is None or step.shape != carried.inner.shape or carried.step not in made:
                raise self.refuse(f"%{carried.step} does not go on as %{carried.inner.name}")
        self.need(len({carried.step for carried in op.carried}) == len(op.carried), "a value goes on as two")
        self.values.clear()
        self.values.update(outside)
        for carried in op.carried:
            self.define(carried.result)

    def formal(self, op: Loop, formal: str, actual: tuple[str, ...]) -> Slot:
        """The slot that stands for those of all iterations."""
        self.need(len(actual) == op.count, f"weight {formal} has {len(actual)} slots for {op.count} iterations")
        self.need(formal not in self.program.slots, f"weight {formal} has the name of a slot")
        slots = [self.slot(name, "panels", "rows", "flat") for name in actual]
        alike = {(slot.layout, slot.shape, slot.dtype, slot.interleave, len(slot.sources)) for slot in slots}
        self.need(len(alike) == 1, f"the slots of weight {formal} differ in more than their name")
        return slots[0]
