"""The rows of a step in NumPy: what an op's meaning is written with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from bossa.ir.functions import FUNCTIONS
from bossa.ir.values import Apply, Cat, Const, Expr, Shape, View

Array = NDArray[Any]


@dataclass
class Rows:
    """Whole sequences, packed one after the other, and what was computed of them.

    Attributes:
        tables: by name, ``[positions, …]`` or ``[1, …]``.
        weights: by slot name, in the slot's logical shape; in a loop, under the formal names too.
        tokens: [T].
        positions: [T].
        starts: [S + 1], the first row of each sequence.
        selected: [n], the rows whose logits are wanted.
        dtype: what to compute in.
        pairs: what an adapter has beside weights, by slot name: ``down`` [R, K] and ``up`` [N, R], scaled; in a loop,
            under the formal names too.
        values: by name, [T, D...]; after the selection, [n, D...].
        row_positions: of the rows that there are now.
    """

    tables: Mapping[str, Array]
    weights: dict[str, Array]
    tokens: Array
    positions: Array
    starts: Array
    selected: Array
    dtype: type[np.floating[Any]]
    pairs: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    row_positions: Array = field(init=False)

    def __post_init__(self) -> None:
        self.row_positions = self.positions

    def look(self, view: View) -> Array:
        """The operand as ``[T, shape...]``."""
        if view.space == "weight":
            base = self.weights[view.name].reshape(1, -1)
        elif view.space == "table":
            table = self.tables[view.name]
            base = np.asarray(table, self.dtype).reshape(len(table), -1)
            if len(table) > 1:
                base = base[self.row_positions]
        else:
            base = self.values[view.name]
            base = base.reshape(len(base), -1)
        base = np.ascontiguousarray(base)
        item = base.itemsize
        strides = (base.strides[0], *(stride * item for stride in view.strides))
        return as_strided(base[:, view.offset :], (len(base), *view.shape), strides, writeable=False)

    def evaluate(self, expr: Expr, shape: Shape, accumulators: Sequence[Array] = ()) -> Array:
        """The expression over ``[T, shape...]``."""
        match expr:
            case Const():
                out = np.full((1,) * (len(shape) + 1), expr.value, self.dtype)
            case View(space="acc"):
                out = accumulators[int(expr.name)].reshape(-1, *shape)
            case View():
                out = self.look(expr)
            case Apply():
                args = [self.evaluate(arg, shape, accumulators) for arg in expr.args]
                with np.errstate(all="ignore"):
                    out = FUNCTIONS[expr.function].numpy(*args).astype(self.dtype)
            case Cat():
                parts = [
                    self.evaluate(part, (*shape[: expr.axis], size, *shape[expr.axis + 1 :]))
                    for part, size in zip(expr.parts, expr.sizes, strict=True)
                ]
                rows = max(len(part) for part in parts)
                full = [
                    np.broadcast_to(part, (rows, *shape[: expr.axis], size, *shape[expr.axis + 1 :]))
                    for part, size in zip(parts, expr.sizes, strict=True)
                ]
                out = np.concatenate(full, axis=expr.axis + 1)
        rows = len(self.row_positions) if len(out) == 1 else len(out)
        return np.broadcast_to(out, (rows, *shape))
