"""``select``: from here on, only the rows whose logits are wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from bossa.ir.line import Line
from bossa.ir.notation import show_expr
from bossa.ir.op import RowOp
from bossa.ir.rows import Array, Rows
from bossa.ir.scope import Scope
from bossa.ir.values import Expr, Value, View


@dataclass(frozen=True)
class Select(RowOp):
    """Keep the rows whose logits are asked for; later values have one slice per kept row."""

    keyword: ClassVar[str] = "select"
    selects: ClassVar[bool] = True
    x: View

    def expressions(self) -> tuple[Expr, ...]:
        return (self.x,)

    def map_operands(self, change: Callable[[View], View]) -> Self:
        return replace(self, x=change(self.x))

    def text(self) -> str:
        return show_expr(self.x)

    @classmethod
    def parse(cls, out: Value, line: Line) -> Self:
        return cls(out, line.view())

    def verify(self, scope: Scope) -> None:
        scope.need(not scope.selected, "rows are selected twice")
        x = scope.value(self.x)
        whole = self.x.identity_of(x.size) and self.out.size == x.size
        scope.need(whole, "a selection of something else than a whole value")
        scope.selected = True
        scope.values.clear()  # what follows has other rows

    def run(self, step: Rows) -> Array:
        kept = step.look(self.x)[step.selected].reshape(-1, *self.out.shape)
        step.row_positions = step.positions[step.selected]
        return kept
