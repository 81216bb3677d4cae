"""What a section's C++ calls things: packed weights, arena rows, position tables, places in state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from bossa.formats.registry import FORMATS
from bossa.ir.op import StatefulOp
from bossa.ir.program import Loop, Op, Program, outputs, weights_of
from bossa.ir.slot import Slot
from bossa.ir.values import View
from bossa.targets.cpu.layout import Plan


def comment(text: str) -> str:
    """A line of comment, the only way by which text of a program reaches its source.

    What is no letter, digit or harmless mark becomes ``_``: no line ends in it, and none goes on after it.
    """
    return "// " + _UNFIT.sub("_", text)


_UNFIT = re.compile(r"[^A-Za-z0-9 _.,:;%$!#\[\](){}<>|+\-=*/\"'@]")
_OWN = re.compile(r"[vt][0-9]{1,9}(_in|_selected)?")
"""Names that the compiler gives to values and tables, which stand in the source as they are."""


class Identifiers:
    """C++ names for the values, tables and weights of a program: made here, and no two the same.

    What is not named by the compiler itself gets a prefix, letters and digits of its name, and a number where another
    one is alike. So none is a keyword, a macro or a variable of the code around it.
    """

    def __init__(self, program: Program) -> None:
        self._taken: set[str] = set()
        self._names: dict[tuple[str, str], str] = {}
        names = [name for op in program.body for name in _made(op)]
        self._give("value", [name for name in names if _OWN.fullmatch(name)], "")
        self._give("value", [name for name in names if not _OWN.fullmatch(name)], "v_")
        self._give("table", [name for name in program.tables if _OWN.fullmatch(name)], "")
        self._give("table", [name for name in program.tables if not _OWN.fullmatch(name)], "t_")
        formal = [name for op in program.body if isinstance(op, Loop) for name, _ in op.weights]
        self._give("weight", [*program.slots, *formal], "w_")

    def _give(self, space: str, names: list[str], prefix: str) -> None:
        for name in names:
            if (space, name) in self._names:
                continue
            stem = prefix + re.sub(r"[^A-Za-z0-9_]", "_", name)[:100]
            made, number = stem, len(self._names)
            while not self._taken.isdisjoint((made, lanes_of(made))):
                made = f"{stem}_{number}"
                number += 1
            self._taken |= {made, lanes_of(made)}
            self._names[space, name] = made

    def of(self, space: str, name: str) -> str:
        """The C++ name of a value, a table or a weight."""
        return self._names[space, name]


def lanes_of(name: str) -> str:
    """The 16 lanes that a reduction to a value sums up in."""
    return f"{name}_lanes"


def _made(op: Op) -> Iterator[str]:
    if isinstance(op, Loop):
        for carried in op.carried:
            yield carried.inner.name
        for inner in op.body:
            yield from _made(inner)
    yield from (value.name for value in outputs(op))


def address(indices: list[str], strides: tuple[int, ...] | list[int]) -> str:
    """``i * 64 + j``: loop indices times strides; empty where all strides are 0."""
    return " + ".join(
        index if stride == 1 else f"{index} * {stride}"
        for index, stride in zip(indices, strides, strict=True)
        if stride
    )


def store(place: str, code: str, n: str | None = None, step: int = 1) -> str:
    """The statement that stores 16 lanes, or the first `n`, `step` floats apart."""
    if n == "1":
        return f"store_n({place}, {code}, 1);"
    if step != 1:
        return f"store_strided({place}, {step}, {code}, {n or 16});"
    return f"store({place}, {code});" if n is None else f"store_n({place}, {code}, {n});"


class Weights:
    """Which slot each weight of a part of the program is: of a loop's body, or of what is in none."""

    def __init__(self, program: Program, loop: Loop | None) -> None:
        self.loop = loop
        self._numbers = {name: i for i, name in enumerate(weights_of(loop) if loop is not None else program.slots)}
        self._first = {formal: actual[0] for formal, actual in loop.weights} if loop is not None else {}
        self._slots = program.slots

    def slot(self, name: str) -> Slot:
        """The slot behind a weight's name; in a loop, that of the first iteration."""
        return self._slots[self._first.get(name, name)]

    def number(self, name: str) -> int:
        """Its place among the slots of the program, or in a loop among the weights of an iteration."""
        return self._numbers[name]


@dataclass(frozen=True)
class Names:
    """The names in one section: of which loop it is a part, if any, and whether it runs on the selected rows."""

    plan: Plan
    identifiers: Identifiers = field(repr=False)
    weights: Weights = field(repr=False)
    selected: bool

    @property
    def loop(self) -> Loop | None:
        """The loop that the section is in."""
        return self.weights.loop

    @property
    def rows(self) -> str:
        """How many rows the section runs on."""
        return "p.step->logit_count" if self.selected else "p.step->rows"

    def value(self, name: str) -> str:
        """What a value's row is called."""
        return self.identifiers.of("value", name)

    def pointer(self, view: View) -> str:
        """What a view's elements are counted from."""
        return self.identifiers.of(view.space, view.name)

    def slot(self, name: str) -> Slot:
        """The slot behind a weight's name; in a loop, that of the first iteration."""
        return self.weights.slot(name)

    def weight(self, name: str) -> str:
        """The packed weight, as a typed pointer."""
        return f"slot<{FORMATS[self.slot(name).dtype].cpp}>(p, {self.slot_number(name)})"

    def slot_number(self, name: str) -> str:
        """The place of a weight among the slots of the program, as an expression."""
        number = self.weights.number(name)
        return str(number) if self.loop is None else f"slots[{number}]"

    def row(self, name: str, t: str) -> str:
        """Row `t` of a value that outlives its section."""
        if name == self.plan.program.output:
            return f"p.step->logits + (size_t){t} * kVocabulary"
        place = self.plan.places[name]
        return f"row(p, {place.offset}, {place.stride}, {t})"

    def table(self, name: str, t: str, kind: str = "float") -> str:
        """The row of a position table for packed row `t`; a table of one row is a constant."""
        table = self.plan.program.tables[name]
        base = f"p.constants + {self.plan.constants[name]}"
        if kind != "float":
            base = f"(const {kind}*)({base})"
        if len(table) == 1:
            return base
        row = f"p.step->logit_rows[{t}]" if self.selected else t
        return f"{base} + (size_t)p.step->positions[{row}] * {prod(table.shape[1:])}"

    def state_offset(self, op: StatefulOp) -> str:
        """Where the op's state starts in a page or slot, as an expression."""
        offsets = self.plan.state_offsets
        offset = str(offsets[op.layer])
        if self.loop is not None and self.loop.count > 1:
            offset += f" + (size_t)i * {offsets[op.layer + self.loop.layers] - offsets[op.layer]}"
        return offset
