"""Rules for attention: through the interface's operator, fused, or written out as product, mask, softmax, product."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from bossa.frontend import layout, products
from bossa.frontend.lowering import Lowering
from bossa.frontend.operand import Operand, drop, fresh, insert, permute
from bossa.frontend.reasons import TooLong, one_line
from bossa.frontend.scores import MASKED, Score, Visibility, classify, window_of
from bossa.ir.values import View
from bossa.ops import Attention

LARGEST_MASK = 8192
"""Masks are checked position by position up to this length."""


# -- rules ---------------------------------------------------------------------------------------------------------


def declared(low: Lowering, node: Node, name: str) -> Operand:
    """``bossa::attention``: a model that goes through transformers' attention interface."""
    q, k, v, mask, scale, window, softcap, sinks = node.args
    seen = _visibility(low, node, mask, window)
    result = _attend(
        low, node, low.operand(node, q), low.operand(node, k), low.operand(node, v), scale, seen, softcap,
        None if sinks is None else low.operand(node, sinks),
    )  # fmt: skip
    return permute(insert(result, 0), (0, 2, 1, 3))


def fused(low: Lowering, node: Node, name: str) -> Operand:
    """``scaled_dot_product_attention``."""
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
    return _closed(low, node, replace(score, normalised=True), v)


def product(low: Lowering, node: Node, name: str) -> Any:
    """A matrix product: of rows with a weight, or of queries with keys."""
    right = low.operand(node, node.args[1])
    if right.row_axis is None:
        return products.linear(low, node, name)
    return _scores(low, node, low.operand(node, node.args[0]), right)


def scaled_product(low: Lowering, node: Node, name: str) -> Score:
    """``baddbmm``: beta times a bias, plus alpha times queries with keys."""
    bias, first, second = node.args
    score = _scores(low, node, low.operand(node, first), low.operand(node, second))
    score = score.scaled(float(node.kwargs.get("alpha", 1)), low.where(node))
    beta = float(node.kwargs.get("beta", 1))
    if beta == 0:
        return score
    if bias not in low.geometry.nodes:
        raise low.refuse(node, "attention scores plus something that depends on the tokens")
    return score.plus(lambda length: low.geometry.value(bias, length), beta, low.where(node))


def score(low: Lowering, node: Node, name: str) -> Any:
    """Any operator on attention scores, up to the product with the values that ends them."""
    where = low.where(node)
    scores = [source for source in node.args if isinstance(source, Node) and isinstance(low.values.get(source), Score)]
    if len(scores) != 1:
        raise low.refuse(node, "attention scores are used in an unknown way")
    at = scores[0]
    known: Score = low.values[at]
    others = [argument for argument in node.args if argument is not at]
    other = others[0] if len(others) == 1 else None
    if name in layout.SAME or name in layout.RESHAPES or name == "expand":
        return known
    if name == "softmax":
        axis = int(node.args[1])
        if axis not in (-1, len(node.meta["val"].shape) - 1) or known.in_tanh or known.normalised:
            raise low.refuse(node, "a softmax of attention scores over another axis than the keys")
        return replace(known, normalised=True)
    if name == "tanh":
        return known.capped(where)
    if name in ("matmul", "bmm") and node.args[0] is at:
        return _closed(low, node, known, low.operand(node, node.args[1]))
    if name == "mul" or (name == "div" and node.args[0] is at):
        factor = _number(low, node, other)
        if factor is not None:
            return known.scaled(factor if name == "mul" else 1.0 / factor, where)
        if name == "mul" and other in low.geometry.nodes:
            return known.gated(lambda length: torch.as_tensor(low.geometry.value(other, length)), where)
    if name in ("maximum", "clamp", "clamp_min") and len(others) == 1:
        lowest = _number(low, node, other)
        if lowest is not None and lowest <= MASKED:  # a floor that only masked positions reach
            return known
    if (name == "add" or (name == "sub" and node.args[0] is at)) and other in low.geometry.nodes:
        sign = (1.0 if name == "add" else -1.0) * float(node.kwargs.get("alpha", 1))
        return known.plus(lambda length: torch.as_tensor(low.geometry.value(other, length)), sign, where)
    if name in ("where", "masked_fill"):
        mask = node.args[0] if name == "where" else node.args[1]
        kept = name == "where" and node.args[1] is at
        fill = _number(low, node, node.args[2] if name == "masked_fill" or kept else node.args[1])
        if mask in low.geometry.nodes and fill is not None and fill <= MASKED:
            return known.plus(lambda length: _additive(low.geometry.value(mask, length).bool() == kept), 1.0, where)
    raise low.refuse(node, "attention scores are used in an unknown way")


# -- what they share -----------------------------------------------------------------------------------------------


def _number(low: Lowering, node: Node, argument: Any) -> float | None:
    """An argument that is one number, whatever the length of the sequence."""
    if isinstance(argument, Node):
        return low.constant(node, argument)
    return float(argument) if isinstance(argument, (int, float)) else None


def _additive(mask: torch.Tensor) -> torch.Tensor:
    """A mask as something to add: truth values become 0 and -inf."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))


def _scores(low: Lowering, node: Node, q: Operand, k: Operand) -> Score:
    """q k^T: the start of attention that is written out."""
    if q.row_axis != len(q.shape) - 2 or k.row_axis != len(k.shape) - 1:
        raise low.refuse(node, "a matrix product between tokens that is not attention")
    return Score(q, permute(k, (*range(len(k.shape) - 2), len(k.shape) - 1, len(k.shape) - 2)))


def _closed(low: Lowering, node: Node, known: Score, v: Operand) -> Operand:
    """softmax(scores) v: the end of attention that was written out."""
    if not known.normalised:
        raise low.refuse(node, "a matrix product between tokens that is not softmax attention")
    if low.max_seq_length > LARGEST_MASK:
        raise TooLong(
            f"{low.where(node)}: attention that the model writes out itself is checked up to {LARGEST_MASK}"
            " positions: compile with a shorter max_seq_length",
            LARGEST_MASK,
        )
    heads = prod(int(extent or 1) for extent in known.q.shape[:-2])
    seen = classify(known.terms, heads, low.max_seq_length, low.where(node), known.gates)
    low.geometry.forget()
    result = _attend(low, node, known.q, known.k, v, known.scale, seen, known.softcap)
    while len(result.shape) < len(v.shape):
        result = insert(result, 0)
    return result


def _heads(low: Lowering, node: Node, x: Operand) -> View:
    """``[..., H, T, D]`` as a view ``[H, D]`` whose features are side by side."""
    if x.row_axis != len(x.shape) - 2 or any(extent != 1 for extent in x.shape[:-3]):
        raise low.refuse(node, "attention over a shape that is not [batch, heads, rows, features]")
    if len(x.shape) == 2:
        x = insert(x, 0)
    while len(x.shape) > 3:
        x = drop(x, 0)
    if x.space != "value" or (x.strides[-1] != 1 and x.shape[-1] != 1):
        x = low.copy(x)
    return x.view()


def _attend(
    low: Lowering,
    node: Node,
    q: Operand,
    k: Operand,
    v: Operand,
    scale: float,
    seen: Visibility,
    softcap: float = 0.0,
    sinks: Operand | None = None,
) -> Operand:
    """An attention op; its result is ``[H, T, E]`` laid out as a row ``[H, E]``."""
    query, key, values = _heads(low, node, q), _heads(low, node, k), _heads(low, node, v)
    heads, groups = query.shape[0], key.shape[0]
    if heads % groups or values.shape[0] != groups:
        raise low.refuse(node, f"{heads} query heads over {groups} key and {values.shape[0]} value heads")
    out = low.value((heads, values.shape[1]))
    bias = None if seen.bias is None else low.keep(np.ascontiguousarray(seen.bias))
    sink_slot = None
    if sinks is not None:
        if sinks.space != "weight" or not sinks.view().identity_of(heads):
            raise low.refuse(node, "attention sinks that are not a weight with one number per head")
        sink_slot = low.slot(sinks.name, "flat")
    window = seen.window if seen.window < low.max_seq_length else 0
    low.ops.append(Attention(out, query, key, values, low.layers, scale, window, softcap, bias, sink_slot))
    low.layers += 1
    return fresh("value", out.name, (heads, None, values.shape[1]))


def _visibility(low: Lowering, node: Node, mask: Any, window: int) -> Visibility:
    """The mask that reached the attention interface, by what its function says; `window` is what the layer asks for."""
    source = mask
    while isinstance(source, Node) and "bossa.mask" not in str(source.target):
        tensors = [n for n in source.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
        if len(tensors) != 1 or "bitwise_not" in str(source.target):
            raise low.refuse(node, "an attention mask that was not made by transformers' mask functions")
        source = tensors[0]
    if source is None:
        return Visibility(window, None)
    function = low.trace.masks.functions[source.args[2]]
    length = min(low.max_seq_length, LARGEST_MASK)
    i, j = torch.arange(length)[:, None], torch.arange(length)[None, :]
    zero = torch.zeros((), dtype=torch.long)
    try:
        allowed = torch.as_tensor(function(zero, zero, i, j)).expand(length, length)
    except Exception as error:
        raise low.refuse(node, f"an attention mask that cannot be evaluated ({one_line(error)})") from error
    found = window_of(allowed, low.where(node))
    if not found and window and window < length:
        raise low.refuse(node, f"a sliding window of {window} that its mask does not have")
    return Visibility(found or (window if low.max_seq_length > length else 0), None)
