"""The row program: what a decoder-only model does to one packed row, and the one op that looks at others.

Every value holds one slice per row, of a static shape. An operand is a *view* of a value, a weight or a position table:
shape, strides and offset inside the row, so slicing, transposing and reshaping within a row cost nothing. Attention is
the only op that mixes rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bossa.ir.slot import Slot

Shape = tuple[int, ...]
Space = Literal["value", "weight", "table", "acc"]
Reduction = Literal["sum", "mean", "max", "min"]

SELECTED = "selected"
ALL = "all"


@dataclass(frozen=True)
class Value:
    """A row value: a name and the shape ``[D...]`` of its slice for one row."""

    name: str
    shape: Shape

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class View:
    """A strided look at one row of a value (``%``), a flat weight (``$``), a position table (``!``) or,
    in a linear's epilogue, the accumulated outputs of its n-th part (``#``).

    Strides and offset count elements inside the row.
    """

    space: Space
    name: str
    shape: Shape
    strides: Shape
    offset: int = 0

    @property
    def contiguous(self) -> bool:
        return self.strides == contiguous_strides(self.shape)

    def identity_of(self, size: int) -> bool:
        """Whether this view reads all `size` elements of its row once, in order."""
        return self.offset == 0 and prod(self.shape) == size and self.contiguous


@dataclass(frozen=True)
class Const:
    """A number."""

    value: float


@dataclass(frozen=True)
class Apply:
    """A pointwise function (a name in `functions.FUNCTIONS`) of expressions over the same domain."""

    function: str
    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Cat:
    """Expressions side by side along one axis of the domain; `sizes` are their extents along it."""

    axis: int
    sizes: Shape
    parts: tuple[Expr, ...]


Expr = View | Const | Apply | Cat


@dataclass(frozen=True)
class Embed:
    """``out = weight[index]``: a row of a table, by token id or by an integer position table."""

    out: Value
    weight: str
    index: str  # "tokens", or the name of an integer position table


@dataclass(frozen=True)
class Linear:
    """``out[..., n] = epilogue(sum_k x[..., k] * weight[n, k] + bias[n])``.

    With `parts` = 2 the weight interleaves two matrices by panels of 16 rows, and the epilogue joins ``#0`` and ``#1``.
    """

    out: Value
    x: View
    weight: str
    bias: str | None = None
    epilogue: Expr | None = None
    parts: int = 1


@dataclass(frozen=True)
class Map:
    """``out[i...] = expr(i...)`` over the domain ``out.shape``."""

    out: Value
    expr: Expr


@dataclass(frozen=True)
class Reduce:
    """A reduction of `expr`, over the last `axes` axes of its `domain`; ``out.shape = domain[:-axes]``."""

    out: Value
    kind: Reduction
    domain: Shape
    axes: int
    expr: Expr


@dataclass(frozen=True)
class Attention:
    """Causal softmax attention of a row's queries ``[H, D]`` over the keys and values of its own sequence.

    A row at position i sees positions j with ``i - window < j <= i`` (no window: 0). `softcap` 0 means none. `bias`
    names a position table ``[max_seq_length, H]`` added to the scores of key position j (ALiBi is one). `sinks` names a
    weight ``[H]`` of extra logits in the softmax denominator.
    """

    out: Value
    q: View
    k: View
    v: View
    layer: int
    scale: float
    window: int = 0
    softcap: float = 0.0
    bias: str | None = None
    sinks: str | None = None


@dataclass(frozen=True)
class Select:
    """Keep the rows whose logits are asked for; later values have one slice per kept row."""

    out: Value
    x: View


@dataclass(frozen=True)
class Carried:
    """A value that goes round a loop: `inner` is `init` in the first iteration and the last `step` after it."""

    init: str
    inner: Value
    step: str
    result: Value


@dataclass(frozen=True)
class Loop:
    """`count` runs of `body`. Weights named in the body are formal: `weights` lists the slot for each iteration.

    Attention layers in the body count from their `layer`, `layers` further each iteration.
    """

    count: int
    layers: int
    carried: tuple[Carried, ...]
    weights: tuple[tuple[str, tuple[str, ...]], ...]
    body: tuple[Op, ...]


RowOp = Embed | Linear | Map | Reduce | Attention | Select
"""The ops that define one value."""
Op = RowOp | Loop


@dataclass(frozen=True)
class Program:
    """A whole model: its ops in order, the slots it reads, its position tables and where the logits are.

    Attributes:
        tables: arrays ``[max_seq_length, D...]`` by name; int32 tables index embeddings, float32 ones are operands.
            A table of one row is a constant, the same at every position.
        output: the value ``[V]`` that holds the logits.
    """

    name: str
    vocab_size: int
    max_seq_length: int
    body: tuple[Op, ...]
    output: str
    slots: dict[str, Slot] = field(default_factory=dict)
    tables: dict[str, NDArray[np.float32] | NDArray[np.int32]] = field(default_factory=dict)


def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides of `shape`; axes of length 1 take the stride that keeps the layout contiguous."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


def whole(value: Value) -> View:
    """The view of all of a value."""
    return View("value", value.name, value.shape, contiguous_strides(value.shape))


def views(expr: Expr) -> Iterator[View]:
    """Every view that an expression reads, left to right."""
    if isinstance(expr, View):
        yield expr
    elif isinstance(expr, Apply):
        for arg in expr.args:
            yield from views(arg)
    elif isinstance(expr, Cat):
        for part in expr.parts:
            yield from views(part)


def map_views(expr: Expr, change: Callable[[View], Expr]) -> Expr:
    """The expression with every view replaced."""
    match expr:
        case View():
            return change(expr)
        case Apply():
            return replace(expr, args=tuple(map_views(arg, change) for arg in expr.args))
        case Cat():
            return replace(expr, parts=tuple(map_views(part, change) for part in expr.parts))
        case _:
            return expr


def expressions(op: Op) -> tuple[Expr, ...]:
    """Every expression of an op, single views included."""
    match op:
        case Map():
            return (op.expr,)
        case Reduce():
            return (op.expr,)
        case Linear():
            return (op.x,) if op.epilogue is None else (op.x, op.epilogue)
        case Attention():
            return (op.q, op.k, op.v)
        case Select():
            return (op.x,)
        case _:
            return ()


def reads(op: Op) -> set[str]:
    """Names of the values that an op reads (for a loop: from outside it)."""
    if isinstance(op, Loop):
        inside = {carried.inner.name for carried in op.carried} | {out.name for o in op.body for out in outputs(o)}
        body = {name for o in op.body for name in reads(o)}
        return {carried.init for carried in op.carried} | (body - inside)
    return {view.name for expr in expressions(op) for view in views(expr) if view.space == "value"}


def outputs(op: Op) -> tuple[Value, ...]:
    """The values that an op defines for the ops after it."""
    if isinstance(op, Loop):
        return tuple(carried.result for carried in op.carried)
    return (op.out,)


def weights_of(op: Op) -> tuple[str, ...]:
    """Names of the weights that an op reads, in a fixed order without repeats (for a loop: the formal names)."""
    names: list[str] = []
    if isinstance(op, Loop):
        for inner in op.body:
            names += weights_of(inner)
    else:
        if isinstance(op, (Linear, Embed)):
            names.append(op.weight)
        if isinstance(op, Linear) and op.bias is not None:
            names.append(op.bias)
        if isinstance(op, Attention) and op.sinks is not None:
            names.append(op.sinks)
        names += [view.name for expr in expressions(op) for view in views(expr) if view.space == "weight"]
    return tuple(dict.fromkeys(names))


def tables_of(op: Op) -> tuple[str, ...]:
    """Names of the position tables that an op reads."""
    names: list[str] = []
    if isinstance(op, Loop):
        for inner in op.body:
            names += tables_of(inner)
    if isinstance(op, Embed) and op.index != "tokens":
        names.append(op.index)
    if isinstance(op, Attention) and op.bias is not None:
        names.append(op.bias)
    names += [view.name for expr in expressions(op) for view in views(expr) if view.space == "table"]
    return tuple(dict.fromkeys(names))
