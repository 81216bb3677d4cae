"""``linear``: a matrix product, with an epilogue over its sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, Self

from bossa.formats.geometry import PANEL
from bossa.formats.registry import FORMATS
from bossa.ir.bounds import Bounds
from bossa.ir.cost import OpCost
from bossa.ir.line import Line
from bossa.ir.notation import show_expr, show_name
from bossa.ir.op import RowOp
from bossa.ir.rows import Array, Rows
from bossa.ir.scope import Scope
from bossa.ir.slot import Slot
from bossa.ir.values import Apply, Cat, Const, Expr, Value, View, map_views


@dataclass(frozen=True)
class Linear(RowOp):
    """``out[..., n] = epilogue(sum_k x[..., k] * weight[n, k] + bias[n])``.

    With `parts` = 2 the weight interleaves two matrices by panels of 16 rows, and the epilogue joins ``#0`` and ``#1``.

    Attributes:
        adapted: whether a row's adapter, if it has one, has its part in the sums: the product of x with ``up @ down``,
            the pair of factors that the adapter has beside the weight, is added to them. Neither the pair nor its rank
            is of the program.
    """

    keyword: ClassVar[str] = "linear"
    x: View
    weight: str
    bias: str | None = None
    epilogue: Expr | None = None
    parts: int = 1
    adapted: bool = False

    def expressions(self) -> tuple[Expr, ...]:
        return (self.x,) if self.epilogue is None else (self.x, self.epilogue)

    def slot_names(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def map_operands(self, change: Callable[[View], View]) -> Self:
        epilogue = None if self.epilogue is None else map_views(self.epilogue, change)
        return replace(self, x=change(self.x), epilogue=epilogue)

    def rename_slots(self, name: Callable[[str], str]) -> Self:
        return replace(self, weight=name(self.weight), bias=None if self.bias is None else name(self.bias))

    def text(self) -> str:
        bias = "" if self.bias is None else f" bias {show_name('weight', self.bias)}"
        parts = "" if self.parts == 1 else f" parts {self.parts}"
        epilogue = "" if self.epilogue is None else f" then {show_expr(self.epilogue)}"
        adapted = " adapted" if self.adapted else ""
        return f"{show_expr(self.x)} {show_name('weight', self.weight)}{bias}{parts}{adapted}{epilogue}"

    @classmethod
    def parse(cls, out: Value, line: Line) -> Self:
        x, weight = line.view(), line.name("$")
        bias = line.name("$") if line.accept("bias") else None
        parts = line.integer() if line.accept("parts") else 1
        adapted = line.accept("adapted")
        return cls(out, x, weight, bias, line.expr() if line.accept("then") else None, parts, adapted)

    def bound(self, bounds: Bounds) -> int:
        bounds.numbers("parts", self.parts)
        groups = prod(self.x.shape[:-1])
        return self.out.size * (self.x.shape[-1] if groups > 1 and self.x.shape else 1)

    def verify(self, scope: Scope) -> None:
        scope.value(self.x)
        scope.view(self.x)
        scope.need(bool(self.x.shape) and self.x.contiguous, "the input of a linear is not contiguous")
        slot = scope.slot(self.weight, "panels")
        outputs, inputs = slot.shape
        scope.need(self.x.shape[-1] == inputs, f"{self.x.shape[-1]} features meet a weight of {outputs} by {inputs}")
        groups, width = prod(self.x.shape[:-1]), outputs // max(self.parts, 1)
        filled = self.out.size == groups * width
        scope.need(filled, f"{groups} times {width} outputs do not fill {list(self.out.shape)}")
        if self.bias is not None:
            scope.need(self.parts == 1, "a linear of several parts has its biases in its epilogue")
            scope.flat(self.bias, outputs)
        scope.need(self.parts >= 1, f"{self.parts} parts")
        scope.need((self.parts > 1) == slot.interleave, "parts and an interleaved weight go together")
        if self.parts > 1:
            scope.need(len(slot.sources) == self.parts, f"{self.parts} parts of {len(slot.sources)} sources")
            whole = width % PANEL == 0 and outputs == self.parts * width
            scope.need(whole, f"parts that are not whole panels of {PANEL}")
            scope.need(self.epilogue is not None, "parts need an epilogue that joins them")
        if self.epilogue is not None:
            scope.need(groups == 1 and self.out.shape == (width,), "an epilogue needs one axis of outputs")
            self._verify_epilogue(self.epilogue, scope)

    def _verify_epilogue(self, expr: Expr, scope: Scope) -> None:
        """An expression that is computed output by output."""
        match expr:
            case View(space="acc"):
                scope.need(expr.name in map(str, range(self.parts)), f"there is no part #{expr.name}")
                whole = expr.shape == self.out.shape and expr.identity_of(self.out.size)
                scope.need(whole, f"#{expr.name} is read other than element by element")
            case View():
                scope.expr(expr, self.out.shape)
                fits = expr.strides[0] in (0, 1) or self.out.size == 1
                scope.need(fits, f"the epilogue reads {expr.name} other than element by element")
            case Apply():
                scope.function(expr)
                for arg in expr.args:
                    self._verify_epilogue(arg, scope)
            case Cat():
                raise scope.refuse("a join in an epilogue")
            case Const():
                pass

    def run(self, step: Rows) -> Array:
        x = step.look(self.x)  # [T, ..., K]
        y = x @ step.weights[self.weight].T
        if self.adapted and self.weight in step.pairs:
            down, up = step.pairs[self.weight]  # [R, K], [N, R]
            y = y + (x @ down.T) @ up.T
        if self.bias is not None:
            y = y + step.weights[self.bias].reshape(-1)
        if self.epilogue is None:
            return y.reshape(-1, *self.out.shape)
        if self.parts == 1:
            return step.evaluate(self.epilogue, self.out.shape, [y])
        panels = y.reshape(*y.shape[:-1], -1, self.parts, PANEL)
        accumulators = [panels[..., part, :].reshape(len(y), -1) for part in range(self.parts)]
        return step.evaluate(self.epilogue, self.out.shape, accumulators)

    def cost(self, slot: Callable[[str], Slot]) -> OpCost:
        held = slot(self.weight)
        operations = 2 * prod(held.shape) * prod(self.x.shape[:-1])
        return OpCost(step_bytes=held.nbytes, operations=operations, arithmetic=FORMATS[held.dtype].arithmetic)
