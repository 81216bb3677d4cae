"""What ops read and make: values, views of them, and expressions.

Every value holds one slice per row, of a static shape. An operand is a *view* of a value, a weight or a position table:
shape, strides and offset inside the row, so slicing, transposing and reshaping within a row cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

Shape = tuple[int, ...]
Space = Literal["value", "weight", "table", "acc"]


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
