"""What is known at one point of a program, and what an operand there must keep to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.errors import ProgramError, shown
from bossa.ir.functions import FUNCTIONS
from bossa.ir.slot import Slot
from bossa.ir.values import Apply, Cat, Const, Expr, Shape, Value, View


@dataclass
class Scope:
    """What is known at one point of the program.

    Attributes:
        title: the program's name.
        slots: by name, the formal weights of the loop included.
        values: readable here.
        names: of values that were ever defined.
        layers: of ops that keep state, so far.
        selected: whether only the rows whose logits are wanted are left.
        place: what is looked at, for messages.
    """

    title: str
    vocab_size: int
    max_seq_length: int
    tables: Mapping[str, NDArray[Any]]
    slots: dict[str, Slot]
    values: dict[str, Value] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    layers: list[int] = field(default_factory=list)
    selected: bool = False
    place: str = "the program"

    def refuse(self, why: str) -> ProgramError:
        """The error that says so."""
        text = self.place if len(self.place) <= 160 else f"{self.place[:157]}..."
        why = why if len(why) <= 240 else f"{why[:237]}..."
        return ProgramError(f"{shown(self.title)[:80]}: {text}: {why}")

    def need(self, holds: bool, why: str) -> None:
        """Refuse what does not hold.

        Raises:
            ProgramError: it does not.
        """
        if not holds:
            raise self.refuse(why)

    def define(self, value: Value) -> None:
        """A new value."""
        self.need(value.name not in self.names, f"%{value.name} is defined twice")
        self.need(all(extent >= 1 for extent in value.shape), f"%{value.name} has an empty axis")
        self.names.add(value.name)
        self.values[value.name] = value

    def value(self, view: View) -> Value:
        """The value that a view looks at."""
        self.need(view.space == "value", "an operand that must be a value is a weight or a table")
        known = self.values.get(view.name)
        if known is None:
            at_all = view.name in self.names
            why = "has the rows of before the selection, or is inside a loop" if at_all else "is not defined before it"
            raise self.refuse(f"%{view.name} {why}")
        return known

    def slot(self, name: str, *layouts: str) -> Slot:
        """A slot, which must have one of these layouts."""
        slot = self.slots.get(name)
        if slot is None:
            raise self.refuse(f"there is no slot {name}")
        self.need(slot.layout in layouts, f"slot {name} has the layout {slot.layout}, not {' or '.join(layouts)}")
        return slot

    def flat(self, name: str, size: int) -> None:
        """A flat slot of so many elements."""
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
                table = self.tables[view.name]
                self.need(table.dtype == np.float32, f"table {view.name} of integers is read as an operand")
                size = prod(table.shape[1:])
            case _:
                raise self.refuse("#, the sums of a linear, are read outside its epilogue")
        self.need(len(view.strides) == len(view.shape), f"{view.name}: there is not one stride for each axis")
        sound = view.offset >= 0 and min(view.strides, default=0) >= 0 and min(view.shape, default=1) >= 1
        last = view.offset + sum((extent - 1) * stride for extent, stride in zip(view.shape, view.strides, strict=True))
        self.need(sound and last < size, f"a view of {view.name} reaches element {last} of {size}")

    def expr(self, expr: Expr, domain: Shape) -> None:
        """An expression over a domain."""
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
        """A function that is known, of as many arguments as it takes."""
        known = FUNCTIONS.get(expr.function)
        if known is None:
            raise self.refuse(f"there is no function {expr.function}")
        self.need(len(expr.args) == known.arity, f"{expr.function} of {len(expr.args)} arguments, not {known.arity}")
