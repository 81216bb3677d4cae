"""Rules for products with weights: embeddings and linears."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from bossa.frontend import pointwise
from bossa.frontend.lowering import Lowering
from bossa.frontend.operand import Dims, Operand, Tokens, broadcast, drop, fresh, permute
from bossa.frontend.reasons import TooLong
from bossa.ops import Embed, Linear


def embedding(low: Lowering, node: Node, name: str) -> Operand:
    weight, index = low.operand(node, node.args[0]), node.args[1]
    if weight.space != "weight" or not weight.view().contiguous or weight.offset or len(weight.shape) != 2:
        raise low.refuse(node, "an embedding in something other than a whole weight")
    shape = low.shape(node)
    slot = low.slot(weight.name, "rows")
    value = low.value(shape)
    if isinstance(low.values.get(index), Tokens):
        low.ops.append(Embed(value, slot, "tokens"))
    elif index in low.geometry.nodes:
        ids = low.evaluate(node, index).reshape(-1).to(torch.int32)
        if len(ids) != low.max_seq_length:
            raise low.refuse(node, "an embedding of several indices per token")
        last, rows = int(ids.max()), int(weight.shape[0] or 0)
        if int(ids.min()) < 0 or last >= rows:
            raise TooLong(
                f"{low.where(node)}: max_seq_length {low.max_seq_length} needs position {last}, the model has"
                f" {rows}: compile with a shorter max_seq_length",
                low.max_seq_length - (last - rows + 1),
            )
        low.ops.append(Embed(value, slot, low.keep(ids.numpy())))
    else:
        raise low.refuse(node, "an embedding of something that is computed from the tokens")
    return fresh("value", value.name, shape)


def linear(low: Lowering, node: Node, name: str) -> Operand:
    """``linear``, and products of rows with a matrix under any other name."""
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
    if name != "linear":
        while len(weight.shape) > 2 and weight.shape[0] == 1:
            weight = drop(weight, 0)
        if len(weight.shape) == 2:
            weight = permute(weight, (1, 0))
    return _product(low, node, x, weight, bias, low.shape(node))


def _product(low: Lowering, node: Node, x: Operand, weight: Operand, bias: Any, shape: Dims) -> Operand:
    """``x [..., K]`` times a whole weight, given as ``[N, K]`` under its strides, plus `bias`."""
    if x.row_axis is None or x.row_axis == len(x.shape) - 1:
        raise low.refuse(node, "a product that reads along the sequence")
    stored = low.parameters.get(weight.name)
    if stored is None or weight.space != "weight" or len(stored[1]) != 2 or len(weight.shape) != 2 or weight.offset:
        raise low.refuse(node, "a product with something other than a whole weight matrix")
    if weight.shape == stored[1] and weight.strides == (stored[1][1], 1):
        transpose = False
    elif weight.shape == stored[1][::-1] and weight.strides == (1, stored[1][1]):
        transpose = True
    else:
        raise low.refuse(node, "a product with a part of a weight matrix")
    if x.space != "value" or not x.view().contiguous:
        x = low.copy(x)
    slot = low.slot(weight.name, "panels", transpose=transpose)
    out = low.value(shape)
    bias_slot, added = None, None
    if bias is not None:
        added = low.operand(node, bias)
        if added.space == "weight" and added.view().identity_of(int(weight.shape[0] or 0)):
            bias_slot, added = low.slot(added.name, "flat"), None
    low.ops.append(Linear(out, x.view(), slot, bias_slot))
    result = fresh("value", out.name, shape)
    if added is not None:
        wide = broadcast(added, shape)
        if wide is None:
            raise low.refuse(node, "a bias whose shape does not fit")
        result = low.map(shape, pointwise.call("add", result.view(), wide.view()))
    return result
