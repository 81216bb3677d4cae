"""Operands of a traced graph while it is lowered: strided views that know which axis, if any, runs over the rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

from bossa.ir.values import Space, View, contiguous_strides

Dim = int | None
"""An extent of a traced tensor; None is T, the packed rows."""
Dims = tuple[Dim, ...]


@dataclass(frozen=True)
class Operand:
    """A view as the trace sees it: its full shape, T included, over one row of something."""

    space: Space
    name: str
    shape: Dims
    strides: tuple[int, ...]  # in elements of a row; the row axis has stride 0
    offset: int = 0

    @property
    def row_axis(self) -> int | None:
        return self.shape.index(None) if None in self.shape else None

    @property
    def row_shape(self) -> tuple[int, ...]:
        return tuple(extent for extent in self.shape if extent is not None)

    def view(self) -> View:
        """The view inside a row: this operand without its row axis."""
        strides = tuple(s for s, extent in zip(self.strides, self.shape, strict=True) if extent is not None)
        return View(self.space, self.name, self.row_shape, strides, self.offset)


class Tokens:
    """The token ids, under any reshaping that keeps them one a row."""


def fresh(space: Space, name: str, shape: Dims) -> Operand:
    """All of a newly made value, contiguous within its row."""
    inner = iter(contiguous_strides(tuple(extent for extent in shape if extent is not None)))
    return Operand(space, name, shape, tuple(0 if extent is None else next(inner) for extent in shape))


def permute(x: Operand, order: tuple[int, ...]) -> Operand:
    return replace(x, shape=tuple(x.shape[i] for i in order), strides=tuple(x.strides[i] for i in order))


def narrow(x: Operand, axis: int, start: int, length: int, step: int = 1) -> Operand:
    """Elements ``start, start + step, ...`` (`length` of them) along one axis."""
    shape, strides = list(x.shape), list(x.strides)
    offset = x.offset + start * strides[axis]
    shape[axis], strides[axis] = length, strides[axis] * step
    return replace(x, shape=tuple(shape), strides=tuple(strides), offset=offset)


def drop(x: Operand, axis: int) -> Operand:
    return replace(x, shape=x.shape[:axis] + x.shape[axis + 1 :], strides=x.strides[:axis] + x.strides[axis + 1 :])


def insert(x: Operand, axis: int) -> Operand:
    return replace(x, shape=(*x.shape[:axis], 1, *x.shape[axis:]), strides=(*x.strides[:axis], 0, *x.strides[axis:]))


def broadcast(x: Operand, shape: Dims) -> Operand | None:
    """`x` over a broader shape, None where that would repeat or mix rows."""
    missing = len(shape) - len(x.shape)
    extents: Dims = (1,) * missing + x.shape
    strides = [0] * missing + list(x.strides)
    for axis, (have, want) in enumerate(zip(extents, shape, strict=True)):
        if have == want:
            continue
        if have != 1:
            return None
        strides[axis] = 0
    return Operand(x.space, x.name, shape, tuple(strides), x.offset)


def reshape(x: Operand, shape: Dims) -> Operand | None:
    """`x` under another shape without moving anything; None where that takes a copy, or T would not stay an axis."""
    if None in x.shape:
        if shape.count(None) != 1:
            return None
        at, to = x.shape.index(None), shape.index(None)
        before = _reshape_strides(x.shape[:at], x.strides[:at], shape[:to])
        after = _reshape_strides(x.shape[at + 1 :], x.strides[at + 1 :], shape[to + 1 :])
        if before is None or after is None:
            return None
        return replace(x, shape=shape, strides=(*before, 0, *after))
    strides = _reshape_strides(x.shape, x.strides, shape)
    return None if strides is None else replace(x, shape=shape, strides=strides)


def _reshape_strides(old: Dims, strides: tuple[int, ...], new: Dims) -> tuple[int, ...] | None:
    """Strides of the same elements in the same order under the shape `new`, where they exist."""
    have = [(int(e), s) for e, s in zip(old, strides, strict=True) if e != 1]  # type: ignore[arg-type]
    want = [int(e) for e in new]  # type: ignore[arg-type]
    if prod(e for e, _ in have) != prod(want):
        return None
    out: list[int] = [0] * len(want)
    i = 0  # next old axis
    j = 0  # next new axis
    while i < len(have) or j < len(want):
        if j < len(want) and want[j] == 1:
            j += 1
            continue
        if i >= len(have) or j >= len(want):
            return None
        olds, news = [have[i]], [j]
        left, right = have[i][0], want[j]
        while left != right:
            if left < right:
                i += 1
                if i >= len(have):
                    return None
                olds.append(have[i])
                left *= have[i][0]
            else:
                j += 1
                if j >= len(want):
                    return None
                news.append(j)
                right *= want[j]
        for (_, outer), (extent, inner) in pairwise(olds):
            if outer != inner * extent:
                return None
        stride = olds[-1][1]
        for axis in reversed(news):
            out[axis] = stride
            stride *= want[axis]
        i, j = i + 1, j + 1
    return tuple(out)
