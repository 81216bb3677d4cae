"""``map``: an expression, element by element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from bossa.ir.line import Line
from bossa.ir.notation import show_expr
from bossa.ir.op import RowOp
from bossa.ir.rows import Array, Rows
from bossa.ir.scope import Scope
from bossa.ir.values import Expr, Value, View, map_views


@dataclass(frozen=True)
class Map(RowOp):
    """``out[i...] = expr(i...)`` over the domain ``out.shape``."""

    keyword: ClassVar[str] = "map"
    expr: Expr

    def expressions(self) -> tuple[Expr, ...]:
        return (self.expr,)

    def map_operands(self, change: Callable[[View], View]) -> Self:
        return replace(self, expr=map_views(self.expr, change))

    def text(self) -> str:
        return show_expr(self.expr)

    @classmethod
    def parse(cls, out: Value, line: Line) -> Self:
        return cls(out, line.expr())

    def verify(self, scope: Scope) -> None:
        scope.expr(self.expr, self.out.shape)

    def run(self, step: Rows) -> Array:
        return step.evaluate(self.expr, self.out.shape)
