"""Rules for operators that only look at a row in another way: reshapes, transposes, slices, joins."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.fx import Node

from bossa.frontend import operand
from bossa.frontend.lowering import Lowering
from bossa.frontend.operand import Operand, Tokens, broadcast, drop, insert, narrow, permute
from bossa.ir.values import Cat

SAME = frozenset("alias clone contiguous detach _to_copy to lift_fresh_copy lift type_as dropout positive".split())
"""Operators that give their first argument back."""
RESHAPES = frozenset("view reshape _unsafe_view unsqueeze squeeze flatten unflatten".split())
"""Operators that keep all elements in their order."""


def _axis(x: Operand, axis: int) -> int:
    return axis % len(x.shape)


def of_features(low: Lowering, node: Node, x: Operand, axis: int) -> int:
    """The axis, shown not to run over the rows."""
    axis = _axis(x, axis)
    if axis == x.row_axis:
        raise low.refuse(node, "it reads along the sequence")
    return axis


def same(low: Lowering, node: Node, name: str) -> Any:
    source = node.args[0]
    value = low.values.get(source) if isinstance(source, Node) else None
    if isinstance(value, Tokens):
        return value
    return low.operand(node, source)


def reshape(low: Lowering, node: Node, name: str) -> Any:
    value = same(low, node, name)
    if isinstance(value, Tokens):
        return value
    shape = low.shape(node)
    out = operand.reshape(value, shape)
    if out is None and (value.row_axis is None) == (None not in shape):
        out = operand.reshape(low.copy(value), shape)
    if out is None:
        raise low.refuse(node, f"the shape {shape} mixes rows with features")
    return out


def transpose(low: Lowering, node: Node, name: str) -> Operand:
    x = low.operand(node, node.args[0])
    order = list(range(len(x.shape)))
    if name == "permute":
        order = [_axis(x, int(axis)) for axis in node.args[1]]
    else:
        first, second = (0, 1) if name == "t" else (_axis(x, node.args[1]), _axis(x, node.args[2]))
        if len(order) > 1:
            order[first], order[second] = order[second], order[first]
    return permute(x, tuple(order))


def expand(low: Lowering, node: Node, name: str) -> Any:
    x = same(low, node, name)
    if isinstance(x, Tokens):
        return x
    shape = low.shape(node)
    if name == "repeat" and len(shape) == len(x.shape):
        for axis, (have, want) in enumerate(zip(x.shape, shape, strict=True)):
            if have is not None and want is not None and have > 1 and want > have:  # tile: [n] -> [r, n] -> [r n]
                tiled = insert(x, axis)
                tiled = broadcast(tiled, (*tiled.shape[:axis], want // have, *tiled.shape[axis + 1 :])) or tiled
                x = operand.reshape(low.copy(tiled), (*x.shape[:axis], want, *x.shape[axis + 1 :])) or x
    out = broadcast(x, shape)
    if out is None:
        raise low.refuse(node, "it repeats along the sequence")
    return out


def repeat_interleave(low: Lowering, node: Node, name: str) -> Operand:
    x = low.operand(node, node.args[0])
    axis = of_features(low, node, x, int(node.args[2]))
    times, extent = int(node.args[1]), int(x.shape[axis] or 0)
    wide = insert(x, axis + 1)
    wide = broadcast(wide, (*wide.shape[: axis + 1], times, *wide.shape[axis + 2 :])) or wide
    merged = (*x.shape[:axis], extent * times, *x.shape[axis + 1 :])
    return operand.reshape(wide, merged) or operand.reshape(low.copy(wide), merged) or wide


def slice_(low: Lowering, node: Node, name: str) -> Any:
    x = same(low, node, name)
    options = dict(zip(("axis", "start", "end", "step"), node.args[1:], strict=False))
    start, step = int(options.get("start") or 0), int(options.get("step", 1))  # where it ends is in the traced shape
    shape = low.shape(node)
    if isinstance(x, Tokens):
        if None not in shape or start != 0 or step != 1:
            raise low.refuse(node, "it selects along the sequence")
        return x
    axis = _axis(x, int(options.get("axis", 0)))
    if x.shape[axis] is None:
        if shape[axis] is not None or start != 0 or step != 1:
            raise low.refuse(node, "it selects along the sequence")
        return x
    extent = int(x.shape[axis] or 0)
    start = max(0, start + extent if start < 0 else min(start, extent))
    return narrow(x, axis, start, int(shape[axis] or 0), step)


def select(low: Lowering, node: Node, name: str) -> Operand:
    x = low.operand(node, node.args[0])
    axis, index = (int(argument) for argument in node.args[1:3])
    axis = of_features(low, node, x, axis)
    index %= int(x.shape[axis] or 1)
    return drop(narrow(x, axis, index, 1), axis)


def split(low: Lowering, node: Node, name: str) -> list[Operand]:
    x = low.operand(node, node.args[0])
    axis = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    if name == "unbind":
        axis = node.args[1] if len(node.args) > 1 else 0
    axis = of_features(low, node, x, int(axis))
    parts, start = [], 0
    for piece in node.meta["val"]:
        length = 1 if name == "unbind" else int(piece.shape[axis])
        part = narrow(x, axis, start, length)
        parts.append(drop(part, axis) if name == "unbind" else part)
        start += length
    return parts


def cat(low: Lowering, node: Node, name: str) -> Operand:
    xs = [low.operand(node, x) for x in node.args[0]]
    axis = int(node.args[1]) if len(node.args) > 1 else int(node.kwargs.get("dim", 0))
    if name == "stack":
        axis %= len(xs[0].shape) + 1
        xs = [insert(x, axis) for x in xs]
    axis = _axis(xs[0], axis)
    shape = low.shape(node)
    if shape[axis] is None:
        raise low.refuse(node, "it joins along the sequence")
    row_axis = shape.index(None) if None in shape else len(shape)
    views, sizes = [], []
    for x in xs:
        size = int(x.shape[axis] or 0)
        wide = broadcast(x, (*shape[:axis], size, *shape[axis + 1 :]))
        if wide is None:
            raise low.refuse(node, "operands whose rows do not line up")
        if size:
            views.append(wide.view())
            sizes.append(size)
    return low.map(shape, Cat(axis - (axis > row_axis), tuple(sizes), tuple(views)))


def index(low: Lowering, node: Node, name: str) -> Operand:
    """Indexing one feature axis by a constant list: a strided slice, or a join of them."""
    x = low.operand(node, node.args[0])
    indices = list(node.args[1]) if name == "index" else [None] * _axis(x, node.args[1]) + [node.args[2]]
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) != 1 or given[0][1] not in low.geometry.nodes:
        raise low.refuse(node, "indexing by anything other than one constant list")
    axis, source = given[0]
    axis = of_features(low, node, x, axis)
    chosen = low.evaluate(node, source)
    if chosen.ndim != 1 or chosen.dtype == torch.bool or None in low.shape(source):
        raise low.refuse(node, "indexing by anything other than one constant list")
    picks = [int(i) % int(x.shape[axis] or 1) for i in chosen]
    if len(picks) == 1:
        return narrow(x, axis, picks[0], 1)
    step = picks[1] - picks[0]
    if step > 0 and all(b - a == step for a, b in pairwise(picks)):
        return narrow(x, axis, picks[0], len(picks), step)
    shape = low.shape(node)
    row_axis = shape.index(None) if None in shape else len(shape)
    parts = tuple(narrow(x, axis, pick, 1).view() for pick in picks)
    return low.map(shape, Cat(axis - (axis > row_axis), (1,) * len(picks), parts))
