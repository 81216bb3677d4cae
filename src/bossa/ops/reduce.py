"""``reduce``: a sum, mean, maximum or minimum over the last axes of an expression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, get_args

import numpy as np

from bossa.ir.bounds import ELEMENTS, Bounds
from bossa.ir.line import Line
from bossa.ir.notation import show_dims, show_expr
from bossa.ir.op import RowOp
from bossa.ir.rows import Array, Rows
from bossa.ir.scope import Scope
from bossa.ir.values import Expr, Shape, Value, View, map_views

Reduction = Literal["sum", "mean", "max", "min"]

_NUMPY: dict[str, Callable[..., Array]] = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}


@dataclass(frozen=True)
class Reduce(RowOp):
    """A reduction of `expr`, over the last `axes` axes of its `domain`; ``out.shape = domain[:-axes]``."""

    keyword: ClassVar[str] = "reduce"
    kind: Reduction
    domain: Shape
    axes: int
    expr: Expr

    def expressions(self) -> tuple[Expr, ...]:
        return (self.expr,)

    def pointwise_domain(self) -> Shape:
        return self.domain

    def map_operands(self, change: Callable[[View], View]) -> Self:
        return replace(self, expr=map_views(self.expr, change))

    def text(self) -> str:
        return f"{self.kind} {self.axes} [{show_dims(self.domain)}] {show_expr(self.expr)}"

    @classmethod
    def parse(cls, out: Value, line: Line) -> Self:
        kind, axes = line.take(), line.integer()
        if kind not in get_args(Reduction):
            raise line.error("sum, mean, max or min")
        return cls(out, kind, line.shape(), axes, line.expr())  # type: ignore[arg-type]  # it is one of them

    def bound(self, bounds: Bounds) -> int:
        bounds.numbers("axes", self.axes)
        bounds.shape(self.domain, ELEMENTS)
        return 0

    def verify(self, scope: Scope) -> None:
        scope.need(1 <= self.axes <= len(self.domain), f"{self.axes} axes of the domain {list(self.domain)}")
        left = self.domain[: len(self.domain) - self.axes]
        scope.need(self.out.shape == left, "its shape is not what is left")
        scope.expr(self.expr, self.domain)

    def run(self, step: Rows) -> Array:
        x = step.evaluate(self.expr, self.domain)
        axes = tuple(range(x.ndim - self.axes, x.ndim))
        return np.asarray(_NUMPY[self.kind](x, axis=axes).astype(step.dtype))
