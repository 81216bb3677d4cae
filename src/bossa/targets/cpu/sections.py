"""The sections of a plan: what runs between two barriers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bossa.ir.op import RowOp, StatefulOp
from bossa.ir.program import Loop, Op, outputs
from bossa.ir.text import show
from bossa.ir.values import View


@dataclass(frozen=True)
class Store:
    """Put views of a row into the state of the sequence, ahead of the op that reads it there.

    Attributes:
        op: the op whose state it is.
        views: what is put there.
    """

    op: StatefulOp
    views: tuple[View, ...]


@dataclass(frozen=True)
class Rows:
    """Row-local ops, run one row after the other; each worker takes a share of the rows."""

    name: str
    ops: tuple[RowOp | Store, ...]
    selected: bool


@dataclass(frozen=True)
class Single:
    """One op that the workers share in a way of its own.

    Attributes:
        row_local: whether each row needs that row alone.
    """

    name: str
    op: RowOp
    selected: bool
    row_local: bool


@dataclass(frozen=True)
class Repeat:
    """Sections run once for each iteration of a loop."""

    name: str
    loop: Loop
    sections: tuple[Section, ...]


Section = Rows | Single | Repeat


def fusion_groups(sections: Iterable[Section], output: str) -> Iterator[tuple[Section, ...]]:
    """The sections of a program or of a loop, those together that one worker may take a block of rows through.

    These follow each other, and each row of theirs needs that row alone. The one that makes the `output`, which is the
    caller's memory, stays by itself.
    """
    run: list[Section] = []
    for section in sections:
        if _is_row_local(section) and output not in makes(section):
            run.append(section)
            continue
        if run:
            yield tuple(run)
            run = []
        yield (section,)
    if run:
        yield tuple(run)


def _is_row_local(section: Section) -> bool:
    if isinstance(section, Repeat) or section.selected:
        return False
    return isinstance(section, Rows) or section.row_local


def makes(section: Section) -> set[str]:
    """Values that a section makes for those after it."""
    if isinstance(section, Repeat):
        return {value.name for value in outputs(section.loop)}
    return {op.out.name for op in ops_of(section) if not isinstance(op, Store)}


def ops_of(section: Rows | Single) -> tuple[RowOp | Store, ...]:
    """The ops of one section."""
    return section.ops if isinstance(section, Rows) else (section.op,)


def ops_in_order(sections: Iterable[Section]) -> Iterator[Op]:
    """The ops of all sections, a loop ahead of its own."""
    for section in sections:
        if isinstance(section, Repeat):
            yield section.loop
            yield from ops_in_order(section.sections)
        else:
            yield from (op for op in ops_of(section) if not isinstance(op, Store))


def describe(sections: Iterable[Section]) -> Iterator[dict[str, str]]:
    """The sections as the manifest lists them: name, kind, and the ops in words."""
    for section in sections:
        match section:
            case Repeat():
                yield {"name": section.name, "kind": "loop", "text": f"{section.loop.count} times:"}
                yield from describe(section.sections)
            case Rows():
                words = ("store" if isinstance(op, Store) else op.keyword for op in section.ops)
                yield {"name": section.name, "kind": "rows", "text": "; ".join(words)}
            case Single():
                yield {"name": section.name, "kind": section.op.keyword, "text": show(section.op)}
