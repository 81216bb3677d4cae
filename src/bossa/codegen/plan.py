"""Where a program's work and values go: sections between barriers, and one arena of activation memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from bossa.program.ir import (
    Attention,
    Cat,
    Embed,
    Expr,
    Linear,
    Loop,
    Map,
    Op,
    Program,
    Reduce,
    Select,
    Value,
    View,
    expressions,
    outputs,
    views,
    whole,
)
from bossa.program.text import show
from bossa.weights.slot import PANEL

PAGE = 32
"""Positions of one KV page; `kPage` of the kernels."""


@dataclass(frozen=True)
class Store:
    """Put a row's keys and values into the KV pages, ahead of the attention that reads them."""

    attention: Attention


@dataclass(frozen=True)
class Rows:
    """Row-local ops, run one row after the other; each worker takes a share of the rows."""

    name: str
    ops: tuple[Embed | Map | Reduce | Select | Store, ...]
    selected: bool


@dataclass(frozen=True)
class Matmul:
    """One linear with its epilogue; the workers share its outputs."""

    name: str
    op: Linear
    selected: bool


@dataclass(frozen=True)
class Attend:
    """One attention; the workers share tiles of rows and heads."""

    name: str
    op: Attention


@dataclass(frozen=True)
class Repeat:
    """Sections run once for each iteration of a loop."""

    name: str
    loop: Loop
    sections: tuple[Section, ...]


Section = Rows | Matmul | Attend | Repeat


@dataclass(frozen=True)
class Place:
    """A value's place in the arena: `offset` and `stride` in floats a row; the k-th row is at
    ``offset * max_rows + k * stride``."""

    offset: int
    stride: int


@dataclass(frozen=True)
class Plan:
    """A program cut into sections, with a place for every value that outlives its section.

    Attributes:
        places: by value name; values that are not here live inside one section.
        floats_per_row: the arena's size for one row.
        kv_offsets: where each attention layer's keys and values start in a page, in floats.
        page_floats: size of a page, all layers together.
        constants: where each table starts in the constants, in floats, and its elements a row.
    """

    program: Program
    sections: tuple[Section, ...]
    places: dict[str, Place]
    floats_per_row: int
    kv_offsets: tuple[int, ...]
    page_floats: int
    constants: dict[str, int]
    constant_floats: int
    shapes: dict[str, Value] = field(default_factory=dict)

    def describe(self) -> list[dict[str, str]]:
        """The sections as the manifest lists them: name, kind, and the ops in words."""
        return list(_describe(self.sections))


def _describe(sections: Iterable[Section]) -> Iterator[dict[str, str]]:
    for section in sections:
        match section:
            case Repeat():
                yield {"name": section.name, "kind": "loop", "text": f"{section.loop.count} times:"}
                yield from _describe(section.sections)
            case Rows():
                text = "; ".join(type(op).__name__.lower() for op in section.ops)
                yield {"name": section.name, "kind": "rows", "text": text}
            case Matmul():
                yield {"name": section.name, "kind": "linear", "text": show(section.op)}
            case Attend():
                yield {"name": section.name, "kind": "attention", "text": show(section.op)}


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def flat_ops(sections: Iterable[Section]) -> Iterator[Op | Store]:
    """Every op of the sections, loop bodies once."""
    for section in sections:
        match section:
            case Rows():
                yield from section.ops
            case Matmul() | Attend():
                yield section.op
            case Repeat():
                yield from flat_ops(section.sections)


def make_plan(program: Program) -> Plan:
    """Cut a program into sections and place its values."""
    sections = _Cutter().cut(program.body)
    shapes = _values(program.body)
    places, floats = _Arena(program, shapes).place(sections)
    kv_offsets, page_floats = _kv_layout(program)
    constants: dict[str, int] = {}
    position = 0
    for name, table in program.tables.items():
        constants[name] = position
        position += round_up(table.size, 16)
    return Plan(program, sections, places, floats, kv_offsets, page_floats, constants, position, shapes)


def pack_constants(program: Program) -> bytes:
    """The tables as the native program reads them: one after the other, each at 64 bytes; biases by head."""
    biases = {op.bias for op in _attentions(program.body) if op.bias is not None}
    chunks: list[bytes] = []
    for name, table in program.tables.items():
        data = (table.T if name in biases else table).astype(table.dtype, order="C").tobytes()
        chunks.append(data + bytes(round_up(len(data), 64) - len(data)))
    return b"".join(chunks)


def _attentions(ops: Iterable[Op]) -> Iterator[Attention]:
    for op in ops:
        if isinstance(op, Attention):
            yield op
        elif isinstance(op, Loop):
            yield from _attentions(op.body)


def _values(ops: Iterable[Op]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for op in ops:
        for value in outputs(op):
            found[value.name] = value
        if isinstance(op, Loop):
            found.update({carried.inner.name: carried.inner for carried in op.carried})
            found.update(_values(op.body))
    return found


def _kv_layout(program: Program) -> tuple[tuple[int, ...], int]:
    """Offsets of the layers in a page, in the order of their numbers, and the page's floats."""
    sizes: dict[int, int] = {}

    def visit(ops: Iterable[Op], shifts: tuple[int, ...] = (0,)) -> None:
        for op in ops:
            if isinstance(op, Attention):
                heads, dim, v_dim = op.k.shape[0], op.k.shape[1], op.v.shape[1]
                for shift in shifts:
                    sizes[op.layer + shift] = heads * PAGE * (dim + round_up(v_dim, PANEL))
            elif isinstance(op, Loop):
                visit(op.body, tuple(i * op.layers for i in range(op.count)))

    visit(program.body)
    offsets = np.concatenate([[0], np.cumsum([sizes[layer] for layer in sorted(sizes)])]).astype(int)
    return tuple(int(o) for o in offsets[:-1]), int(offsets[-1])


class _Cutter:
    """Groups ops into sections; a rows section takes every row-local op up to the next barrier."""

    def __init__(self) -> None:
        self.count = 0
        self.selected = False

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}_{self.count - 1}"

    def cut(self, ops: Iterable[Op]) -> tuple[Section, ...]:
        sections: list[Section] = []
        rows: list[Embed | Map | Reduce | Select | Store] = []

        def flush() -> None:
            if rows:
                sections.append(Rows(self.name("rows"), tuple(rows), self.selected))
                rows.clear()

        for op in ops:
            match op:
                case Linear():
                    flush()
                    sections.append(Matmul(self.name("linear"), op, self.selected))
                case Attention():
                    rows.append(Store(op))
                    flush()
                    sections.append(Attend(self.name("attention"), op))
                case Loop():
                    flush()
                    name = self.name("loop")
                    sections.append(Repeat(name, op, self.cut(op.body)))
                case Select():
                    flush()
                    self.selected = True
                    rows.append(op)
                case _:
                    rows.append(op)
        flush()
        return tuple(sections)


@dataclass
class _Buffer:
    """Memory that one or more values share, one after the other, and the sections in which it is in use."""

    size: int
    first: int
    last: int
    offset: int = -1


class _Arena:
    """Finds which values need memory between sections, lets results take their operand's place where they can, and
    packs the rest by lifetime (first fit)."""

    def __init__(self, program: Program, shapes: dict[str, Value]) -> None:
        self.program = program
        self.shapes = shapes
        self.defined: dict[str, int] = {}
        self.read: dict[str, int] = {}
        self.ends: list[tuple[int, int]] = []  # of loops: first and last section
        self.buffers: dict[str, _Buffer] = {}

    def place(self, sections: tuple[Section, ...]) -> tuple[dict[str, Place], int]:
        self.number(sections, 0)
        for op in self.ordered(sections):
            self.assign(op)
        chosen: list[_Buffer] = []
        top = 0
        for buffer in sorted({id(b): b for b in self.buffers.values()}.values(), key=lambda b: (b.first, -b.size)):
            busy = sorted(
                ((b.offset, b.size) for b in chosen if b.first <= buffer.last and buffer.first <= b.last),
            )
            at = 0
            for offset, size in busy:
                if at + buffer.size <= offset:
                    break
                at = max(at, offset + size)
            buffer.offset = at
            top = max(top, at + buffer.size)
            chosen.append(buffer)
        return {name: Place(b.offset, b.size) for name, b in self.buffers.items()}, top

    def number(self, sections: tuple[Section, ...], at: int) -> int:
        """Number the sections in order, loop bodies included, and note where values are defined and last read."""
        for section in sections:
            if isinstance(section, Repeat):
                first = at
                for carried in section.loop.carried:
                    self.read[carried.init] = max(self.read.get(carried.init, 0), at - 1)
                    self.defined[carried.inner.name] = at
                at = self.number(section.sections, at)
                for carried in section.loop.carried:
                    self.read[carried.step] = at  # read by the copy that ends an iteration, if there is one
                    self.defined[carried.result.name] = at
                for name, last in self.read.items():  # from outside: in use until the loop has ended
                    if first <= last <= at and self.defined.get(name, at) < first:
                        self.read[name] = at
                at += 1
                continue
            ops = section.ops if isinstance(section, Rows) else (section.op,)
            for op in ops:
                for name in _reads(op):
                    self.read[name] = max(self.read.get(name, 0), at)
                if not isinstance(op, Store):
                    for value in outputs(op):
                        self.defined[value.name] = at
            at += 1
        return at

    def ordered(self, sections: tuple[Section, ...]) -> Iterator[Op]:
        for section in sections:
            match section:
                case Rows():
                    yield from (op for op in section.ops if not isinstance(op, Store))
                case Matmul() | Attend():
                    yield section.op
                case Repeat():
                    yield section.loop
                    yield from self.ordered(section.sections)

    def assign(self, op: Op) -> None:
        if isinstance(op, Loop):
            for carried in op.carried:
                buffer = self.buffers[carried.init]
                alone = self.read[carried.init] < self.defined[carried.inner.name]
                if not alone:
                    buffer = self.new(carried.inner, self.defined[carried.inner.name])
                end = max(self.read.get(carried.result.name, 0), self.defined[carried.result.name])
                buffer.last = max(buffer.last, end)
                self.buffers[carried.inner.name] = self.buffers[carried.result.name] = buffer
            return
        value = op.out
        if value.name == self.program.output or value.name in self.buffers:
            return
        at, last = self.defined[value.name], self.read.get(value.name, -1)
        if last <= at and not self.goes_round(value.name):  # lives inside its own section
            return
        source = self.in_place(op, at)
        if source is not None:
            self.buffers[value.name] = self.buffers[source]
            self.buffers[value.name].last = max(self.buffers[value.name].last, last)
        else:
            self.new(value, at)

    def new(self, value: Value, at: int) -> _Buffer:
        last = max(self.read.get(value.name, at), at)
        buffer = _Buffer(round_up(max(value.size, 1), 16), at, last)
        self.buffers[value.name] = buffer
        return buffer

    def in_place(self, op: Op, at: int) -> str | None:
        """An operand in the arena that ends here and is read only element by element."""
        if isinstance(op, Map):
            expr: Expr | None = op.expr
        elif isinstance(op, Linear):
            expr = op.epilogue
        else:
            return None
        if expr is None or _has_cat(expr):
            return None
        for view in views(expr):
            name = view.name
            if view.space != "value" or name not in self.buffers or self.read.get(name) != at:
                continue
            if self.buffers[name].last > at and not self.carried(name):
                continue
            size = self.shapes[name].size
            same = [v for v in views(expr) if v.space == "value" and v.name == name]
            if size == op.out.size and all(v == whole(op.out) or v.identity_of(size) for v in same):
                if isinstance(op, Linear) and op.x.space == "value" and op.x.name == name:
                    continue
                if self.readers_in(at, name) == 1:
                    return name
        return None

    def carried(self, name: str) -> bool:
        """Whether the buffer of `name` goes round a loop: its place may be taken once the value itself is done with."""
        return any(
            self.buffers.get(carried.inner.name) is self.buffers[name]
            for op in self.program.body
            if isinstance(op, Loop)
            for carried in op.carried
        )

    def goes_round(self, name: str) -> bool:
        """Whether a loop starts from this value: then it lives in the arena although no section reads it."""
        return any(
            name == carried.init for op in self.program.body if isinstance(op, Loop) for carried in op.carried
        )

    def readers_in(self, at: int, name: str) -> int:
        """How many ops of the section numbered `at` read `name`."""
        return self._readers.get((at, name), 0)

    @property
    def _readers(self) -> dict[tuple[int, str], int]:
        if not hasattr(self, "_counted"):
            self._counted: dict[tuple[int, str], int] = {}
            self._count(_Cutter().cut(self.program.body), 0)
        return self._counted

    def _count(self, sections: tuple[Section, ...], at: int) -> int:
        for section in sections:
            if isinstance(section, Repeat):
                at = self._count(section.sections, at) + 1
                continue
            for op in section.ops if isinstance(section, Rows) else (section.op,):
                for name in _reads(op):
                    self._counted[at, name] = self._counted.get((at, name), 0) + 1
            at += 1
        return at


def _reads(op: Op | Store) -> set[str]:
    if isinstance(op, Store):
        return {op.attention.k.name, op.attention.v.name}
    if isinstance(op, Attention):
        return {op.q.name}
    return {view.name for expr in expressions(op) for view in views(expr) if view.space == "value"}


def _has_cat(expr: Expr) -> bool:
    if isinstance(expr, Cat):
        return True
    args: tuple[Expr, ...] = () if isinstance(expr, View) else getattr(expr, "args", ())
    return any(_has_cat(arg) for arg in args)
