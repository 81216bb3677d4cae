"""A program cut into sections: what runs between two barriers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bossa.ir.program import Attention, Embed, Linear, Loop, Map, Op, Reduce, Select, expressions, outputs, views
from bossa.ir.text import show


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


def cut(ops: Iterable[Op]) -> tuple[Section, ...]:
    """The sections of a program's ops, in order."""
    return _Cutter().cut(ops)


def stretches(sections: Iterable[Section], output: str) -> Iterator[tuple[Section, ...]]:
    """The sections of a program or of a loop, those together that one worker may take a block of rows through.

    These follow each other, and each row of theirs needs that row alone. The one that makes the `output`, which is the
    caller's memory, stays by itself.
    """
    run: list[Section] = []
    for section in sections:
        if isinstance(section, (Rows, Matmul)) and not section.selected and output not in makes(section):
            run.append(section)
            continue
        if run:
            yield tuple(run)
            run = []
        yield (section,)
    if run:
        yield tuple(run)


def reads(op: Op | Store) -> set[str]:
    """Values that an op of a section reads; an attention's keys and values are read by the store ahead of it."""
    if isinstance(op, Store):
        return {op.attention.k.name, op.attention.v.name}
    if isinstance(op, Attention):
        return {op.q.name}
    return {view.name for expr in expressions(op) for view in views(expr) if view.space == "value"}


def makes(section: Rows | Matmul) -> set[str]:
    """Values that a section makes."""
    return {value.name for op in ops_of(section) if not isinstance(op, Store) for value in outputs(op)}


def ops_of(section: Rows | Matmul | Attend) -> tuple[Op | Store, ...]:
    """The ops of one section."""
    return section.ops if isinstance(section, Rows) else (section.op,)


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


def describe(sections: Iterable[Section]) -> Iterator[dict[str, str]]:
    """The sections as the manifest lists them: name, kind, and the ops in words."""
    for section in sections:
        match section:
            case Repeat():
                yield {"name": section.name, "kind": "loop", "text": f"{section.loop.count} times:"}
                yield from describe(section.sections)
            case Rows():
                text = "; ".join(type(op).__name__.lower() for op in section.ops)
                yield {"name": section.name, "kind": "rows", "text": text}
            case Matmul():
                yield {"name": section.name, "kind": "linear", "text": show(section.op)}
            case Attend():
                yield {"name": section.name, "kind": "attention", "text": show(section.op)}
