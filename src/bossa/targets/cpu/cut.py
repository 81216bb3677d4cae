"""A program cut into sections."""

from __future__ import annotations

from collections.abc import Iterable

from bossa.ir.op import RowOp, StatefulOp
from bossa.ir.program import Loop, Op
from bossa.targets.cpu.emit.kinds import emitter_of
from bossa.targets.cpu.sections import Repeat, Rows, Section, Single, Store


def cut(ops: Iterable[Op]) -> tuple[Section, ...]:
    """The sections of a program's ops, in order."""
    return _Cutter().cut(ops)


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
        rows: list[RowOp | Store] = []

        def flush() -> None:
            if rows:
                sections.append(Rows(self.name("rows"), tuple(rows), self.selected))
                rows.clear()

        for op in ops:
            if isinstance(op, Loop):
                flush()
                name = self.name("loop")
                sections.append(Repeat(name, op, self.cut(op.body)))
                continue
            emitter = emitter_of(op)
            stored = emitter.stored(op)
            if stored and isinstance(op, StatefulOp):
                rows.append(Store(op, stored))
            if emitter.single:
                flush()
                sections.append(Single(self.name(op.keyword), op, self.selected, emitter.row_local))
                continue
            if op.selects:
                flush()
                self.selected = True
            rows.append(op)
        flush()
        return tuple(sections)
