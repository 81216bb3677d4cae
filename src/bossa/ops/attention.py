"""``attention``: causal softmax attention of a row over its own sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from typing import ClassVar, Self

import numpy as np

from bossa.ir.bounds import QUERY_FLOATS, REAL, STORED_VALUES, Bounds
from bossa.ir.cost import OpCost
from bossa.ir.line import Line
from bossa.ir.notation import show_expr, show_name
from bossa.ir.op import StatefulOp
from bossa.ir.rows import Array, Rows
from bossa.ir.scope import Scope
from bossa.ir.slot import Slot
from bossa.ir.state import StateSpec
from bossa.ir.values import Expr, Value, View


@dataclass(frozen=True)
class Attention(StatefulOp):
    """Causal softmax attention of a row's queries ``[H, D]`` over the keys and values of its own sequence.

    A row at position i sees positions j with ``i - window < j <= i`` (no window: 0). `softcap` 0 means none. `bias`
    names a position table ``[max_seq_length, H]`` added to the scores of key position j (ALiBi is one). `sinks` names a
    weight ``[H]`` of extra logits in the softmax denominator.
    """

    keyword: ClassVar[str] = "attention"
    q: View
    k: View
    v: View
    layer: int
    scale: float
    window: int = 0
    softcap: float = 0.0
    bias: str | None = None
    sinks: str | None = None

    @property
    def kept(self) -> int:
        """Numbers of keys and values of a position."""
        return self.k.shape[0] * (self.k.shape[1] + self.v.shape[1])

    def with_layer(self, layer: int) -> Self:
        return replace(self, layer=layer)

    def state(self) -> StateSpec:
        return StateSpec("paged", 4 * self.kept, rewinds=True)

    def expressions(self) -> tuple[Expr, ...]:
        return (self.q, self.k, self.v)

    def slot_names(self) -> tuple[str, ...]:
        return () if self.sinks is None else (self.sinks,)

    def table_names(self) -> tuple[str, ...]:
        return () if self.bias is None else (self.bias,)

    def column_tables(self) -> tuple[str, ...]:
        return self.table_names()

    def map_operands(self, change: Callable[[View], View]) -> Self:
        return replace(self, q=change(self.q), k=change(self.k), v=change(self.v))

    def rename_slots(self, name: Callable[[str], str]) -> Self:
        return self if self.sinks is None else replace(self, sinks=name(self.sinks))

    def text(self) -> str:
        bias = "" if self.bias is None else f" bias {show_name('table', self.bias)}"
        sinks = "" if self.sinks is None else f" sinks {show_name('weight', self.sinks)}"
        return (
            f"{show_expr(self.q)} {show_expr(self.k)} {show_expr(self.v)} layer {self.layer}"
            f" scale {self.scale!r} window {self.window} softcap {self.softcap!r}{bias}{sinks}"
        )

    @classmethod
    def parse(cls, out: Value, line: Line) -> Self:
        q, k, v = line.view(), line.view(), line.view()
        line.take("layer")
        layer = line.integer()
        line.take("scale")
        scale = line.real()
        line.take("window")
        window = line.integer()
        line.take("softcap")
        softcap = line.real()
        bias = line.name("!") if line.accept("bias") else None
        sinks = line.name("$") if line.accept("sinks") else None
        return cls(out, q, k, v, layer, scale, window, softcap, bias, sinks)

    def bound(self, bounds: Bounds) -> int:
        bounds.numbers("layer and window", self.layer, self.window)
        bounds.need(abs(self.scale) < REAL and abs(self.softcap) < REAL, "a scale or cap out of range")
        for view in (self.q, self.k, self.v):
            bounds.need(len(view.shape) == 2, f"%{view.name} is not read as [heads, features]")
        (groups, features), values = self.k.shape, self.v.shape[1]
        width = -(-values // 16) * 16
        fits = features + 2 * width <= QUERY_FLOATS
        bounds.need(fits, f"heads of {features} and {values} features are too wide")
        bounds.need(groups * width <= STORED_VALUES, f"{groups} heads of {values} values a row are too many")
        return 0

    def verify(self, scope: Scope) -> None:
        for view in (self.q, self.k, self.v):
            scope.value(view)
            scope.view(view)
            good = len(view.shape) == 2 and (view.strides[1] == 1 or view.shape[1] == 1)
            scope.need(good, f"%{view.name} is not read as [heads, features] with features side by side")
        (heads, features), (groups, key), (value_groups, width) = self.q.shape, self.k.shape, self.v.shape
        scope.need(features == key, f"queries of {features} features meet keys of {key}")
        scope.need(heads % groups == 0 and groups == value_groups, f"{heads} heads over {groups} and {value_groups}")
        scope.need(self.out.size == heads * width, f"{heads} heads of {width} do not fill {list(self.out.shape)}")
        sound = isfinite(self.scale) and isfinite(self.softcap) and self.softcap >= 0
        scope.need(sound and self.window >= 0, "a scale, cap or window out of range")
        if self.bias is not None:
            table = scope.tables[self.bias]
            good = table.dtype == np.float32 and table.shape == (scope.max_seq_length, heads)
            scope.need(good, f"the bias {self.bias} has shape {list(table.shape)}, not [positions, heads]")
        if self.sinks is not None:
            scope.flat(self.sinks, heads)

    def run(self, step: Rows) -> Array:
        q, k, v = step.look(self.q), step.look(self.k), step.look(self.v)  # [T, H, D], [T, G, D], [T, G, E]
        heads, groups = q.shape[1], k.shape[1]
        out = np.empty((len(q), heads, v.shape[2]), step.dtype)
        bias = None if self.bias is None else np.asarray(step.tables[self.bias], step.dtype)
        sinks = None if self.sinks is None else step.weights[self.sinks].reshape(-1)
        for start, end in zip(step.starts[:-1], step.starts[1:], strict=True):
            i, j = np.arange(end - start)[:, None], np.arange(end - start)[None, :]
            allowed = (j <= i) & ((j > i - self.window) if self.window else True)
            for head in range(heads):
                group = head * groups // heads
                scores = (q[start:end, head] @ k[start:end, group].T) * step.dtype(self.scale)
                if self.softcap:
                    scores = self.softcap * np.tanh(scores / self.softcap)
                if bias is not None:
                    scores = scores + bias[: end - start, head]
                scores = np.where(allowed, scores, -np.inf)
                top = scores.max(axis=1, keepdims=True)
                if sinks is not None:
                    top = np.maximum(top, sinks[head])
                p = np.exp(scores - top)
                total = p.sum(axis=1, keepdims=True)
                if sinks is not None:
                    total = total + np.exp(sinks[head] - top)
                out[start:end, head] = (p / total) @ v[start:end, group]
        return out.reshape(-1, *self.out.shape)

    def cost(self, slot: Callable[[str], Slot]) -> OpCost:
        operations = 2 * self.q.shape[0] * (self.q.shape[1] + self.v.shape[1])
        return OpCost(kept=self.kept, seen_operations=operations, window=self.window)
