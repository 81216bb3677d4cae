"""One rule an operator: what each node of a traced graph adds to the row program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.fx import Node

from bossa.frontend import pointwise
from bossa.frontend.lower import Lowering
from bossa.frontend.operand import (
    Operand,
    Tokens,
    broadcast,
    broadcast_shapes,
    drop,
    fresh,
    insert,
    narrow,
    permute,
    reshape,
)
from bossa.frontend.scores import Score, Visibility, window_of
from bossa.program.ir import Cat, Const, Embed, Expr

Rule = Callable[[Lowering, Node, str], Any]

_SAME = "alias clone contiguous detach _to_copy to lift_fresh_copy lift type_as dropout positive".split()
_RESHAPES = "view reshape _unsafe_view unsqueeze squeeze flatten unflatten".split()
_REDUCTIONS = {"mean": "mean", "sum": "sum", "amax": "max", "amin": "min"}


def operator_name(node: Node) -> str:
    """``add`` of ``aten.add.Tensor``, ``attention`` of ``bossa.attention.default``."""
    overload = node.target
    return overload._schema.name.split("::")[-1] if isinstance(overload, torch._ops.OpOverload) else str(overload)


def lower_node(low: Lowering, node: Node) -> None:
    """Lower one node that depends on tokens or weights.

    Raises:
        CompileError: the operator is not known, or is not local to its row.
    """
    name = operator_name(node).rstrip("_") or operator_name(node)
    if name in ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size", "mask"):
        return
    name = {"__and__": "bitwise_and", "__or__": "bitwise_or", "_softmax": "softmax"}.get(name, name)
    if any(isinstance(low.values.get(source), Score) for source in node.all_input_nodes):
        low.values[node] = _score(low, node, name)
        return
    rule = RULES.get(name)
    if rule is not None:
        low.values[node] = rule(low, node, name)
    elif pointwise.known(name):
        low.values[node] = low.pointwise(node, name, node.args, node.kwargs)
    else:
        raise low.refuse(node, "no rule for this operator")


def _axis(x: Operand, axis: int) -> int:
    return axis % len(x.shape)


def _of_features(low: Lowering, node: Node, x: Operand, axis: int) -> int:
    """The axis, shown not to run over the rows."""
    axis = _axis(x, axis)
    if axis == x.row_axis:
        raise low.refuse(node, "it reads along the sequence")
    return axis


def _same(low: Lowering, node: Node, name: str) -> Any:
    source = node.args[0]
    value = low.values.get(source) if isinstance(source, Node) else None
    if isinstance(value, Tokens):
        return value
    return low.operand(node, source)


def _reshape(low: Lowering, node: Node, name: str) -> Any:
    value = _same(low, node, name)
    if isinstance(value, Tokens):
        return value
    shape = low.shape(node)
    out = reshape(value, shape)
    if out is None and (value.row_axis is None) == (None not in shape):
        out = reshape(low.copy(value), shape)
    if out is None:
        raise low.refuse(node, f"the shape {shape} mixes rows with features")
    return out


def _permute(low: Lowering, node: Node, name: str) -> Operand:
    x = low.operand(node, node.args[0])
    order = list(range(len(x.shape)))
    if name == "permute":
        order = [_axis(x, int(axis)) for axis in node.args[1]]
    else:
        first, second = (0, 1) if name == "t" else (_axis(x, node.args[1]), _axis(x, node.args[2]))
        if len(order) > 1:
            order[first], order[second] = order[second], order[first]
    return permute(x, tuple(order))


def _expand(low: Lowering, node: Node, name: str) -> Any:
    x = _same(low, node, name)
    if isinstance(x, Tokens):
        return x
    shape = low.shape(node)
    if name == "repeat" and len(shape) == len(x.shape):
        for axis, (have, want) in enumerate(zip(x.shape, shape, strict=True)):
            if have is not None and want is not None and have > 1 and want > have:  # tile: [n] -> [r, n] -> [r n]
                tiled = insert(x, axis)
                tiled = broadcast(tiled, (*tiled.shape[:axis], want // have, *tiled.shape[axis + 1 :])) or tiled
                x = reshape(low.copy(tiled), (*x.shape[:axis], want, *x.shape[axis + 1 :])) or x
    out = broadcast(x, shape)
    if out is None:
        raise low.refuse(node, "it repeats rows")
    return out


def _repeat_interleave(low: Lowering, node: Node, name: str) -> Operand:
    x = low.operand(node, node.args[0])
    axis = _of_features(low, node, x, int(node.args[2]))
    times, extent = int(node.args[1]), int(x.shape[axis] or 0)
    wide = insert(x, axis + 1)
    wide = broadcast(wide, (*wide.shape[: axis + 1], times, *wide.shape[axis + 2 :])) or wide
    merged = (*x.shape[:axis], extent * times, *x.shape[axis + 1 :])
    return reshape(wide, merged) or reshape(low.copy(wide), merged) or wide


def _slice(low: Lowering, node: Node, name: str) -> Any:
    x = _same(low, node, name)
    axis, start, _end, step = (*node.args[1:], *(0, 0, None, 1)[len(node.args) - 1 :])
    shape = low.shape(node)
    if isinstance(x, Tokens):
        if None not in shape or start not in (0, None) or step != 1:
            raise low.refuse(node, "it takes some of the rows")
        return x
    axis = _axis(x, int(axis))
    start = 0 if start is None else start
    if x.shape[axis] is None:
        if shape[axis] is not None or start != 0 or step != 1:
            raise low.refuse(node, "it takes some of the rows")
        return x
    extent = int(x.shape[axis] or 0)
    start = max(0, start + extent if start < 0 else min(start, extent))
    return narrow(x, axis, start, int(shape[axis] or 0), int(step))


def _select(low: Lowering, node: Node, name: str) -> Operand:
    x = low.operand(node, node.args[0])
    axis = _of_features(low, node, x, int(node.args[1]))
    index = int(node.args[2]) % int(x.shape[axis] or 1)
    return drop(narrow(x, axis, index, 1), axis)


def _split(low: Lowering, node: Node, name: str) -> list[Operand]:
    x = low.operand(node, node.args[0])
    axis = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    if name == "unbind":
        axis = node.args[1] if len(node.args) > 1 else 0
    axis = _of_features(low, node, x, int(axis))
    parts, start = [], 0
    for piece in node.meta["val"]:
        length = 1 if name == "unbind" else int(piece.shape[axis])
        part = narrow(x, axis, start, length)
        parts.append(drop(part, axis) if name == "unbind" else part)
        start += length
    return parts


def _cat(low: Lowering, node: Node, name: str) -> Operand:
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


def _index(low: Lowering, node: Node, name: str) -> Operand:
    """Indexing one feature axis by a constant list: a strided slice, or a join of them."""
    x = low.operand(node, node.args[0])
    indices = list(node.args[1]) if name == "index" else [None] * _axis(x, node.args[1]) + [node.args[2]]
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) != 1 or given[0][1] not in low.geometry.nodes:
        raise low.refuse(node, "indexing by something else than one constant list")
    axis, source = given[0]
    axis = _of_features(low, node, x, axis)
    chosen = low.geometry.value(source, low.max_seq_length)
    if chosen.ndim != 1 or chosen.dtype == torch.bool or None in low.shape(source):
        raise low.refuse(node, "indexing by something else than one constant list")
    picks = [int(i) % int(x.shape[axis] or 1) for i in chosen]
    if len(picks) == 1:
        return narrow(x, axis, picks[0], 1)
    step = picks[1] - picks[0]
    if step > 0 and all(b - a == step for a, b in zip(picks, picks[1:], strict=False)):
        return narrow(x, axis, picks[0], len(picks), step)
    shape = low.shape(node)
    row_axis = shape.index(None) if None in shape else len(shape)
    parts = tuple(narrow(x, axis, pick, 1).view() for pick in picks)
    return low.map(shape, Cat(axis - (axis > row_axis), (1,) * len(picks), parts))


def _embedding(low: Lowering, node: Node, name: str) -> Operand:
    weight, index = low.operand(node, node.args[0]), node.args[1]
    if weight.space != "weight" or not weight.view().contiguous or weight.offset or len(weight.shape) != 2:
        raise low.refuse(node, "an embedding in something else than a whole weight")
    shape = low.shape(node)
    slot = low.slot(weight.name, "rows")
    value = low.value(shape)
    if isinstance(low.values.get(index), Tokens):
        low.ops.append(Embed(value, slot, "tokens"))
    elif index in low.geometry.nodes:
        ids = low.geometry.value(index, low.max_seq_length).reshape(-1).to(torch.int32)
        if len(ids) != low.max_seq_length:
            raise low.refuse(node, "an embedding of several indices a row")
        if int(ids.min()) < 0 or int(ids.max()) >= int(weight.shape[0] or 0):
            raise low.refuse(
                node,
                f"max_seq_length {low.max_seq_length} needs position {int(ids.max())}, the model has"
                f" {weight.shape[0]}: compile with a shorter max_seq_length",
            )
        low.ops.append(Embed(value, slot, low.keep(ids.numpy())))
    else:
        raise low.refuse(node, "an embedding of something that is computed from the tokens")
    return fresh("value", value.name, shape)


def _linear(low: Lowering, node: Node, name: str) -> Operand:
    bias = None
    if name == "addmm":
        bias, first, second = node.args[:3]
        if node.kwargs.get("beta", 1) != 1 or node.kwargs.get("alpha", 1) != 1:
            raise low.refuse(node, "addmm with alpha or beta")
    else:
        first, second = node.args[:2]
        if name == "linear":
            bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    x = low.operand(node, first)
    weight = low.operand(node, second)
    if name in ("matmul", "bmm", "mm", "baddbmm") and weight.row_axis is not None:
        return _product_of_rows(low, node, name, x, weight)
    if name not in ("linear",):
        while len(weight.shape) > 2 and weight.shape[0] == 1:
            weight = drop(weight, 0)
        if len(weight.shape) == 2:
            weight = permute(weight, (1, 0))
    return low.linear(node, x, weight, bias, low.shape(node))


def _product_of_rows(low: Lowering, node: Node, name: str, q: Operand, k: Operand) -> Any:
    """q k^T: the start of attention that is written out."""
    if q.row_axis != len(q.shape) - 2 or k.row_axis != len(k.shape) - 1:
        raise low.refuse(node, "a product of rows with rows that is not attention")
    order = (*range(len(k.shape) - 2), len(k.shape) - 1, len(k.shape) - 2)
    return Score(q, permute(k, order))


def _baddbmm(low: Lowering, node: Node, name: str) -> Any:
    bias, first, second = node.args
    score = _product_of_rows(low, node, name, low.operand(node, first), low.operand(node, second))
    score = score.scaled(float(node.kwargs.get("alpha", 1)), low.where(node))
    beta = float(node.kwargs.get("beta", 1))
    if beta == 0:
        return score
    if bias not in low.geometry.nodes:
        raise low.refuse(node, "attention scores plus something that depends on the tokens")
    return score.plus(lambda length: low.geometry.value(bias, length), beta, low.where(node))


def _attention(low: Lowering, node: Node, name: str) -> Operand:
    q, k, v, mask, scale, window, softcap, sinks = node.args
    seen = low.visibility(node, mask, window)
    result = low.attend(
        node, low.operand(node, q), low.operand(node, k), low.operand(node, v), scale, seen, softcap,
        None if sinks is None else low.operand(node, sinks),
    )  # fmt: skip
    return permute(insert(result, 0), (0, 2, 1, 3))


def _sdpa(low: Lowering, node: Node, name: str) -> Operand:
    q, k, v = (low.operand(node, x) for x in node.args[:3])
    rest = (*node.args[3:], *(None, 0.0, False)[len(node.args) - 3 :])
    mask, _, causal = rest[:3]
    scale = node.kwargs.get("scale") or int(q.shape[-1] or 1) ** -0.5
    score = Score(q, k, float(scale))
    if causal:
        score = score.plus(lambda t: torch.full((t, t), float("-inf")).triu(1), 1.0, low.where(node))
    elif mask is not None:
        if mask not in low.geometry.nodes:
            raise low.refuse(node, "an attention mask that depends on the tokens")
        score = score.plus(lambda length: _additive(low.geometry.value(mask, length)), 1.0, low.where(node))
    return low.closed(node, replace(score, normalised=True), v)


def _additive(mask: torch.Tensor) -> torch.Tensor:
    """A mask as something to add: truth values become 0 and -inf."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))


def _score(low: Lowering, node: Node, name: str) -> Any:
    """An operator on attention scores."""
    where = low.where(node)
    scores = [source for source in node.args if isinstance(source, Node) and isinstance(low.values.get(source), Score)]
    if len(scores) != 1:
        raise low.refuse(node, "attention scores are used in a way that is not known")
    score: Score = low.values[scores[0]]
    others = [a for a in node.args if a is not scores[0]]
    if name in _SAME or name in _RESHAPES or name == "expand":
        return score
    if name == "softmax":
        axis = int(node.args[1])
        if axis not in (-1, len(node.meta["val"].shape) - 1) or score.in_tanh or score.normalised:
            raise low.refuse(node, "a softmax of attention scores over another axis than the keys")
        return replace(score, normalised=True)
    if name == "tanh":
        return score.capped(where)
    if name in ("matmul", "bmm"):
        if node.args[0] is not scores[0]:
            raise low.refuse(node, "a product with attention weights on the right")
        return low.closed(node, score, low.operand(node, node.args[1]))
    if name in ("mul", "div") and len(others) == 1:
        other = others[0]
        if isinstance(other, Node) and other in low.geometry.nodes:
            number = low.geometry.value(other, low.max_seq_length)
            other = float(number) if not isinstance(number, torch.Tensor) or number.numel() == 1 else None
        if isinstance(other, (int, float)) and (name == "mul" or node.args[0] is scores[0]):
            return score.scaled(float(other) if name == "mul" else 1.0 / float(other), where)
    if len(others) == 1 and (name == "add" or (name == "sub" and node.args[0] is scores[0])):
        other, sign = others[0], (1.0 if name == "add" else -1.0) * float(node.kwargs.get("alpha", 1))
        if isinstance(other, Node) and other in low.geometry.nodes:
            return score.plus(lambda length: torch.as_tensor(low.geometry.value(other, length)), sign, where)
    if name in ("where", "masked_fill"):
        mask = node.args[0] if name == "where" else node.args[1]
        kept = node.args[1] is scores[0] if name == "where" else False
        fill = node.args[2] if name == "masked_fill" or kept else node.args[1]
        if isinstance(mask, Node) and mask in low.geometry.nodes:
            if isinstance(fill, Node) and fill in low.geometry.nodes:
                fill = float(low.geometry.value(fill, low.max_seq_length))
            if isinstance(fill, (int, float)) and fill <= -1e9:
                return score.plus(
                    lambda length: _additive(low.geometry.value(mask, length).bool() == kept), 1.0, where
                )
    raise low.refuse(node, "attention scores are used in a way that is not known")


def _softmax(low: Lowering, node: Node, name: str) -> Operand:
    x = low.operand(node, node.args[0])
    x = _last(low, node, x, int(node.args[1]))
    top = low.reduce(x, "max", 1)
    e = low.map(x.shape, pointwise.softmax(x.view(), low.spread(top, x, 1)))
    total = low.reduce(e, "sum", 1)
    out = low.map(x.shape, pointwise.call("div", e.view(), low.spread(total, e, 1)))
    return _unlast(out, len(x.shape), int(node.args[1]))


def _last(low: Lowering, node: Node, x: Operand, axis: int) -> Operand:
    """`x` with the feature axis moved to the end."""
    axis = _of_features(low, node, x, axis)
    return permute(x, (*(i for i in range(len(x.shape)) if i != axis), axis))


def _unlast(x: Operand, rank: int, axis: int) -> Operand:
    axis %= rank
    order = list(range(rank - 1))
    order.insert(axis, rank - 1)
    return permute(x, tuple(order))


def _layer_norm(low: Lowering, node: Node, name: str) -> Operand:
    x = low.operand(node, node.args[0])
    axes = len(node.args[1])
    if x.row_axis is None or x.row_axis >= len(x.shape) - axes:
        raise low.refuse(node, "a norm along the sequence")
    rest = (*node.args[2:], *(None, None, None)[len(node.args) - 2 :])
    weight, bias = (
        None if a is None else (broadcast(low.operand(node, a), x.shape) or x).view() for a in rest[:2]
    )
    eps = 1e-5 if rest[2] is None else float(rest[2])
    mean = low.spread(low.reduce(x, "mean", axes), x, axes)
    centred = pointwise.call("sub", x.view(), mean)
    variance = low.spread(low.reduce(x, "mean", axes, pointwise.power(centred, Const(2.0))), x, axes)
    return low.map(x.shape, pointwise.layer_norm(x.view(), mean, variance, eps, weight, bias))


def _rms_norm(low: Lowering, node: Node, name: str) -> Operand:
    x = low.operand(node, node.args[0])
    axes = len(node.args[1])
    if x.row_axis is None or x.row_axis >= len(x.shape) - axes:
        raise low.refuse(node, "a norm along the sequence")
    given = node.args[2] if len(node.args) > 2 else None
    weight = None if given is None else (broadcast(low.operand(node, given), x.shape) or x).view()
    eps = node.args[3] if len(node.args) > 3 and node.args[3] is not None else torch.finfo(torch.float32).eps
    mean = low.reduce(x, "mean", axes, pointwise.power(x.view(), Const(2.0)))
    return low.map(x.shape, pointwise.rms_norm(x.view(), low.spread(mean, x, axes), float(eps), weight))


def _reduction(low: Lowering, node: Node, name: str) -> Operand:
    x = low.operand(node, node.args[0])
    axes = node.args[1] if len(node.args) > 1 else list(range(len(x.shape)))
    axes = [_of_features(low, node, x, int(a)) for a in (axes if isinstance(axes, (list, tuple)) else [axes])]
    keep = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim", False))
    kept = [i for i in range(len(x.shape)) if i not in axes]
    moved = permute(x, (*kept, *axes))
    out = low.reduce(moved, _REDUCTIONS[name], len(axes))
    result = fresh("value", out.name, tuple(x.shape[i] for i in kept))
    if keep:
        for axis in sorted(axes):
            result = insert(result, axis)
    return result


def _mask_of_one_row(low: Lowering, node: Node, name: str) -> Any:
    raise low.refuse(node, "it reads along the sequence")


RULES: dict[str, Rule] = (
    dict.fromkeys(_SAME, _same)
    | dict.fromkeys(_RESHAPES, _reshape)
    | dict.fromkeys(("transpose", "permute", "t"), _permute)
    | dict.fromkeys(("expand", "expand_as", "repeat"), _expand)
    | dict.fromkeys(("split", "split_with_sizes", "chunk", "unbind"), _split)
    | dict.fromkeys(("cat", "stack"), _cat)
    | dict.fromkeys(("linear", "addmm", "mm", "matmul", "bmm"), _linear)
    | dict.fromkeys(_REDUCTIONS, _reduction)
    | dict.fromkeys(("cumsum", "roll", "flip", "diff"), _mask_of_one_row)
    | {
        "repeat_interleave": _repeat_interleave,
        "slice": _slice,
        "select": _select,
        "index": _index,
        "index_select": _index,
        "embedding": _embedding,
        "baddbmm": _baddbmm,
        "attention": _attention,
        "scaled_dot_product_attention": _sdpa,
        "softmax": _softmax,
        "layer_norm": _layer_norm,
        "rms_norm": _rms_norm,
    }
)
