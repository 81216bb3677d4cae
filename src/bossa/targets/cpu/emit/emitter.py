"""What the target must know of one kind of op: how it is cut, what memory it takes, and its C++."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar, Generic, TypeVar

from bossa.formats.precision import KvPrecision
from bossa.ir.op import RowOp
from bossa.ir.program import tables_of
from bossa.ir.values import Expr, View, views
from bossa.targets.cpu.emit.names import Names
from bossa.targets.cpu.emit.rows import RowWriter

OpT = TypeVar("OpT", bound=RowOp)


class Emitter(ABC, Generic[OpT]):
    """How ops of one kind are run. One of ``write_row`` and ``write_section`` is there.

    Attributes:
        single: whether it has a section of its own, whose work the workers share in a way of its own, instead of being
            run row after row beside others.
        row_local: whether, in its own section, a row needs that row alone.
    """

    single: ClassVar[bool] = False
    row_local: ClassVar[bool] = False

    def header(self, op: OpT) -> str | None:
        """Of the kernels, one that it calls and that not every program needs."""
        return None

    # -- memory ---------------------------------------------------------------------------------------------------

    def stored(self, op: OpT) -> tuple[View, ...]:
        """What is put into the state of the sequence, row by row, before its section."""
        return ()

    def state_bytes(self, op: OpT, kv_precision: KvPrecision) -> int:
        """What its state takes in a page, where it is paged."""
        return 0

    def overwrites(self, op: OpT) -> Expr | None:
        """An expression that it reads element by element, so that its result may take the place of an operand there."""
        return None

    def reads_beside(self, op: OpT) -> frozenset[str]:
        """Values that it reads otherwise than by that expression."""
        return frozenset()

    # -- row by row -----------------------------------------------------------------------------------------------

    def row_views(self, op: OpT) -> list[View]:
        """The views that it reads in the row at hand."""
        return [view for expr in op.expressions() for view in views(expr)]

    def row_tables(self, op: OpT) -> tuple[str, ...]:
        """The tables of floats of which it reads the row of the position at hand."""
        return tables_of(op)

    def write_row(self, writer: RowWriter, op: OpT, out: str) -> None:
        """Write what it does to row ``t``; ``out`` is the C++ name of its result there."""
        raise NotImplementedError(f"{op.keyword} has a section of its own")

    def begin_store(self, writer: RowWriter, op: OpT) -> None:
        """Write what is needed ahead of the loop over rows that puts them into state."""

    def write_store(self, writer: RowWriter, op: OpT) -> None:
        """Write what puts row ``t`` into state."""

    def say_store(self, op: OpT) -> str:
        """What that is, in words."""
        return ""

    # -- in a section of its own ----------------------------------------------------------------------------------

    def write_section(self, names: Names, op: OpT) -> list[str]:
        """The body of its section's function."""
        raise NotImplementedError(f"{op.keyword} runs row by row")


AnyEmitter = Emitter[Any]
