"""``causal_conv``: a short convolution of each channel along the rows of its sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from bossa.ir.bounds import Bounds
from bossa.ir.cost import OpCost
from bossa.ir.line import Line
from bossa.ir.notation import show_expr
from bossa.ir.op import StatefulOp
from bossa.ir.rows import Array, Rows
from bossa.ir.scope import Scope
from bossa.ir.slot import Slot
from bossa.ir.state import StateSpec
from bossa.ir.values import Expr, Value, View

MOST_TAPS = 64
"""Taps of a channel: as many as a kernel keeps in registers and on its stack."""
LONGEST_REACH = 1024
"""Rows before its own that a row may see."""
LANES = 16


@dataclass(frozen=True)
class CausalConv(StatefulOp):
    """A depthwise convolution that sees its own row and those shortly before it.

    ``out_t[c] = sum_j weight[c, j] * x_s[c]`` with ``s = t - delay - (taps - 1 - j) * dilation``, in the order of j;
    rows before the sequence are zero.

    Attributes:
        x: the channels of a row, ``[C]``, side by side.
        weight: ``[C, taps]``, of a flat weight.
        dilation: rows from one tap to the next, 1 or more.
        delay: rows between the last tap and the row itself.
    """

    keyword: ClassVar[str] = "causal_conv"
    x: View
    weight: View
    layer: int
    dilation: int = 1
    delay: int = 0

    @property
    def taps(self) -> int:
        """Rows that are summed up for one."""
        return self.weight.shape[1]

    @property
    def reach(self) -> int:
        """Rows before its own that a row sees, at most."""
        return self.delay + (self.taps - 1) * self.dilation

    def with_layer(self, layer: int) -> Self:
        return replace(self, layer=layer)

    def state(self) -> StateSpec:
        row = 4 * -(-self.x.shape[0] // LANES) * LANES
        return StateSpec("recurrent", self.reach * row, rewinds=False, draft_bytes=row)

    def expressions(self) -> tuple[Expr, ...]:
        return (self.x, self.weight)

    def map_operands(self, change: Callable[[View], View]) -> Self:
        return replace(self, x=change(self.x), weight=change(self.weight))

    def text(self) -> str:
        return (
            f"{show_expr(self.x)} {show_expr(self.weight)} layer {self.layer} dilation {self.dilation}"
            f" delay {self.delay}"
        )

    @classmethod
    def parse(cls, out: Value, line: Line) -> Self:
        x, weight = line.view(), line.view()
        line.take("layer")
        layer = line.integer()
        line.take("dilation")
        dilation = line.integer()
        line.take("delay")
        return cls(out, x, weight, layer, dilation, line.integer())

    def bound(self, bounds: Bounds) -> int:
        bounds.numbers("layer, dilation and delay", self.layer, self.dilation, self.delay)
        shaped = len(self.x.shape) == 1 and len(self.weight.shape) == 2
        bounds.need(shaped, "it is not of [channels] with [channels, taps]")
        bounds.need(1 <= self.taps <= MOST_TAPS, f"{self.taps} taps, where {MOST_TAPS} are the most")
        near = 1 <= self.reach <= LONGEST_REACH
        bounds.need(near, f"it reaches back {self.reach} rows, where 1 to {LONGEST_REACH} are known")
        return self.out.size * self.taps

    def verify(self, scope: Scope) -> None:
        scope.value(self.x)
        scope.view(self.x)
        scope.need(self.x.strides == (1,) or self.x.shape == (1,), "its channels are not side by side")
        scope.need(self.weight.space == "weight", "its taps are no weight")
        scope.view(self.weight)
        channels = self.x.shape[0]
        scope.need(self.weight.shape[0] == channels, f"{channels} channels meet taps of {self.weight.shape[0]}")
        scope.need(self.out.size == channels, f"{channels} channels do not fill {list(self.out.shape)}")
        scope.need(self.dilation >= 1, "a dilation below 1")

    def run(self, step: Rows) -> Array:
        x, weight = step.look(self.x), step.look(self.weight)[0]  # [T, C], [C, taps]
        out = np.zeros(x.shape, step.dtype)
        for start, end in zip(step.starts[:-1], step.starts[1:], strict=True):
            for tap in range(self.taps):
                lag = self.delay + (self.taps - 1 - tap) * self.dilation
                if lag < end - start:
                    out[start + lag : end] += x[start : end - lag] * weight[:, tap]
        return out.reshape(-1, *self.out.shape)

    def cost(self, slot: Callable[[str], Slot]) -> OpCost:
        return OpCost(operations=2 * self.out.size * self.taps, sequence_bytes=2 * self.state().bytes)
