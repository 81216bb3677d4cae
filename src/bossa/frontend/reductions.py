"""Rules for reductions over a row's features: sums and means, softmax, norms."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from bossa.frontend import pointwise
from bossa.frontend.layout import of_features
from bossa.frontend.lowering import Lowering
from bossa.frontend.operand import Operand, broadcast, fresh, insert, permute
from bossa.ir.values import Const, View
from bossa.ops import Reduction

REDUCTIONS: dict[str, Reduction] = {"mean": "mean", "sum": "sum", "amax": "max", "amin": "min"}


def reduction(low: Lowering, node: Node, name: str) -> Operand:
    x = low.operand(node, node.args[0])
    axes = node.args[1] if len(node.args) > 1 else list(range(len(x.shape)))
    axes = [of_features(low, node, x, int(a)) for a in (axes if isinstance(axes, (list, tuple)) else [axes])]
    keep = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim", False))
    kept = [i for i in range(len(x.shape)) if i not in axes]
    out = low.reduce(permute(x, (*kept, *axes)), REDUCTIONS[name], len(axes))
    result = fresh("value", out.name, tuple(x.shape[i] for i in kept))
    if keep:
        for axis in sorted(axes):
            result = insert(result, axis)
    return result


def softmax(low: Lowering, node: Node, name: str) -> Operand:
    x = low.operand(node, node.args[0])
    axis = of_features(low, node, x, int(node.args[1]))
    others = [i for i in range(len(x.shape)) if i != axis]
    x = permute(x, (*others, axis))
    top = low.reduce(x, "max", 1)
    e = low.map(x.shape, pointwise.softmax(x.view(), low.spread(top, x, 1)))
    total = low.reduce(e, "sum", 1)
    out = low.map(x.shape, pointwise.call("div", e.view(), low.spread(total, e, 1)))
    back = list(range(len(others)))
    back.insert(axis, len(others))
    return permute(out, tuple(back))


def layer_norm(low: Lowering, node: Node, name: str) -> Operand:
    x, axes, (weight, bias, given) = _normed(low, node, 3)
    eps = 1e-5 if given is None else float(given)
    mean = low.spread(low.reduce(x, "mean", axes), x, axes)
    centred = pointwise.call("sub", x.view(), mean)
    variance = low.spread(low.reduce(x, "mean", axes, pointwise.power(centred, Const(2.0))), x, axes)
    scale, shift = _affine(low, node, x, weight), _affine(low, node, x, bias)
    return low.map(x.shape, pointwise.layer_norm(x.view(), mean, variance, eps, scale, shift))


def rms_norm(low: Lowering, node: Node, name: str) -> Operand:
    x, axes, (weight, given) = _normed(low, node, 2)
    eps = torch.finfo(torch.float32).eps if given is None else float(given)
    mean = low.spread(low.reduce(x, "mean", axes, pointwise.power(x.view(), Const(2.0))), x, axes)
    return low.map(x.shape, pointwise.rms_norm(x.view(), mean, eps, _affine(low, node, x, weight)))


def _normed(low: Lowering, node: Node, rest: int) -> tuple[Operand, int, list[Any]]:
    """What is normed, over how many of its last axes, and the `rest` arguments after those."""
    x = low.operand(node, node.args[0])
    axes = len(node.args[1])
    if x.row_axis is None or x.row_axis >= len(x.shape) - axes:
        raise low.refuse(node, "a norm along the sequence")
    given = list(node.args[2 : 2 + rest])
    return x, axes, given + [None] * (rest - len(given))


def _affine(low: Lowering, node: Node, x: Operand, weight: Any) -> View | None:
    if weight is None:
        return None
    wide = broadcast(low.operand(node, weight), x.shape)
    if wide is None:
        raise low.refuse(node, "a norm's weight whose shape does not fit")
    return wide.view()
