"""Pointwise work as loops: a domain cut into boxes where every joined part is one part, and its axes merged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bossa.ir.values import Apply, Cat, Const, Expr, Shape, View, contiguous_strides, views


@dataclass(frozen=True)
class Box:
    """A part of a domain: its extents, where its first element is in a contiguous result, that result's strides, and
    the expression over it, without joins."""

    shape: Shape
    offset: int
    strides: Shape
    expr: Expr


def boxes(expr: Expr, domain: Shape) -> Iterator[Box]:
    """Cut the domain at the joints of every `Cat`."""
    strides = contiguous_strides(domain)
    for starts, shape, part in pieces(expr, domain, len(domain)):
        offset = sum(start * stride for start, stride in zip(starts, strides, strict=True))
        yield _merged(Box(shape, offset, strides, part))


def pieces(expr: Expr, domain: Shape, axes: int) -> Iterator[tuple[Shape, Shape, Expr]]:
    """Cut the domain at the joints along its first `axes` axes: where each piece starts, its extents, and the
    expression over it."""

    def cut(e: Expr, shape: Shape, starts: Shape) -> Iterator[tuple[Shape, Shape, Expr]]:
        joint = _first_cat(e, axes)
        if joint is None:
            yield starts, shape, e
            return
        at = 0
        for size in joint.sizes:
            axis = joint.axis
            inner = (*shape[:axis], size, *shape[axis + 1 :])
            moved = (*starts[:axis], starts[axis] + at, *starts[axis + 1 :])
            yield from cut(_restrict(e, axis, at, size), inner, moved)
            at += size

    yield from cut(expr, domain, (0,) * len(domain))


def _first_cat(expr: Expr, axes: int) -> Cat | None:
    """A join along one of the first `axes` axes."""
    match expr:
        case Cat() if expr.axis < axes:
            return expr
        case Cat(parts=inner) | Apply(args=inner):
            return next((cat for part in inner if (cat := _first_cat(part, axes)) is not None), None)
        case _:
            return None


def _restrict(expr: Expr, axis: int, start: int, size: int) -> Expr:
    """The expression over elements ``start .. start + size`` of one axis."""
    match expr:
        case View():
            shape = (*expr.shape[:axis], size, *expr.shape[axis + 1 :])
            return replace(expr, shape=shape, offset=expr.offset + start * expr.strides[axis])
        case Apply():
            return replace(expr, args=tuple(_restrict(arg, axis, start, size) for arg in expr.args))
        case Cat() if expr.axis != axis:
            return replace(expr, parts=tuple(_restrict(part, axis, start, size) for part in expr.parts))
        case Cat():
            pieces: list[tuple[int, Expr]] = []
            at = 0
            for extent, part in zip(expr.sizes, expr.parts, strict=True):
                low, high = max(start, at), min(start + size, at + extent)
                if low < high:
                    pieces.append((high - low, _restrict(part, axis, low - at, high - low)))
                at += extent
            if len(pieces) == 1:
                return pieces[0][1]
            return Cat(axis, tuple(n for n, _ in pieces), tuple(part for _, part in pieces))
        case _:
            return expr


def _merged(box: Box) -> Box:
    """The box with every pair of neighbouring axes merged that all its views and its result step through alike."""
    shape, strides, expr = list(box.shape), list(box.strides), box.expr
    axis = len(shape) - 2
    while axis >= 0:
        inner = shape[axis + 1]
        alike = strides[axis] == strides[axis + 1] * inner or shape[axis] == 1
        if alike and all(v.strides[axis] == v.strides[axis + 1] * inner or shape[axis] == 1 for v in views(expr)):
            merged = shape[axis] * inner
            expr = _merge_axis(expr, axis, merged)
            shape[axis : axis + 2] = [merged]
            strides[axis : axis + 2] = [strides[axis + 1]]
        axis -= 1
    return Box(tuple(shape), box.offset, tuple(strides), expr)


def _merge_axis(expr: Expr, axis: int, extent: int) -> Expr:
    match expr:
        case View():
            return replace(
                expr,
                shape=(*expr.shape[:axis], extent, *expr.shape[axis + 2 :]),
                strides=(*expr.strides[:axis], expr.strides[axis + 1], *expr.strides[axis + 2 :]),
            )
        case Apply():
            return replace(expr, args=tuple(_merge_axis(arg, axis, extent) for arg in expr.args))
        case _:
            return expr


def shared(expr: Expr) -> set[Expr]:
    """Applications and views that occur more than once in the expression."""
    counts: dict[Expr, int] = {}

    def visit(e: Expr) -> None:
        if isinstance(e, Const):
            return
        counts[e] = counts.get(e, 0) + 1
        if counts[e] == 1 and isinstance(e, Apply):
            for arg in e.args:
                visit(arg)

    visit(expr)
    return {e for e, n in counts.items() if n > 1}
