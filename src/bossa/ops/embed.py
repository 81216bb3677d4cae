"""``embed``: a row of a weight, by token id or by a position table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from bossa.ir.bounds import Bounds
from bossa.ir.cost import OpCost
from bossa.ir.line import Line
from bossa.ir.notation import show_name
from bossa.ir.op import RowOp
from bossa.ir.rows import Array, Rows
from bossa.ir.scope import Scope
from bossa.ir.slot import Slot
from bossa.ir.values import Value, View

TOKENS = "tokens"


@dataclass(frozen=True)
class Embed(RowOp):
    """``out = weight[index]``: a row of a table, by token id or by an integer position table.

    Attributes:
        index: ``tokens``, or the name of an integer position table.
    """

    keyword: ClassVar[str] = "embed"
    weight: str
    index: str

    def slot_names(self) -> tuple[str, ...]:
        return (self.weight,)

    def table_names(self) -> tuple[str, ...]:
        return () if self.index == TOKENS else (self.index,)

    def map_operands(self, change: Callable[[View], View]) -> Self:
        return self

    def rename_slots(self, name: Callable[[str], str]) -> Self:
        return replace(self, weight=name(self.weight))

    def text(self) -> str:
        index = TOKENS if self.index == TOKENS else show_name("table", self.index)
        return f"{show_name('weight', self.weight)} {index}"

    @classmethod
    def parse(cls, out: Value, line: Line) -> Self:
        weight = line.name("$")
        return cls(out, weight, TOKENS if line.accept(TOKENS) else line.name("!"))

    def bound(self, bounds: Bounds) -> int:
        return self.out.size

    def verify(self, scope: Scope) -> None:
        scope.need(not scope.selected or self.index != TOKENS, "an embedding of tokens after the selection of rows")
        rows, features = scope.slot(self.weight, "rows", "panels").shape
        scope.need(self.out.size == features, f"rows of {features} do not fill {list(self.out.shape)}")
        if self.index == TOKENS:
            scope.need(rows >= scope.vocab_size, f"{rows} rows for a vocabulary of {scope.vocab_size}")
            return
        table = scope.tables[self.index]
        scope.need(
            table.dtype == np.int32 and table[0].size == 1, f"table {self.index} has not one whole number a position"
        )
        good = int(table.min()) >= 0 and int(table.max()) < rows
        scope.need(good, f"table {self.index} points outside the {rows} rows")

    def run(self, step: Rows) -> Array:
        if self.index == TOKENS:
            index = step.tokens
        else:
            index = np.asarray(step.tables[self.index].reshape(-1))[step.row_positions]
        return step.weights[self.weight][index].reshape(-1, *self.out.shape)

    def cost(self, slot: Callable[[str], Slot]) -> OpCost:
        held = slot(self.weight)
        return OpCost(row_bytes=held.nbytes // max(1, held.shape[0]))
