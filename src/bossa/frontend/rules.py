"""One rule an operator: what each node of a traced graph adds to the row program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from bossa.frontend import attention, convolution, layout, pointwise, products, reductions
from bossa.frontend.convolution import Extended
from bossa.frontend.lowering import Lowering
from bossa.frontend.scores import Score

Rule = Callable[[Lowering, Node, str], Any]

_NOTHING = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size", "mask")
"""Operators that leave nothing in a row program; masks are read where attention uses them."""
_ALIASES = {"__and__": "bitwise_and", "__or__": "bitwise_or", "_softmax": "softmax"}


def operator_name(node: Node) -> str:
    """``add`` of ``aten.add.Tensor`` and of ``aten.add_.Tensor``, ``attention`` of ``bossa.attention.default``."""
    overload = node.target
    name = overload._schema.name.split("::")[-1] if isinstance(overload, torch._ops.OpOverload) else str(overload)
    name = name if name.startswith("__") else name.rstrip("_")
    return _ALIASES.get(name, name)


def lower_node(low: Lowering, node: Node) -> None:
    """Lower one node that depends on tokens or weights.

    Raises:
        CompileError: the operator is not known, or is not local to its row.
    """
    name = operator_name(node)
    if name in _NOTHING:
        return
    if any(isinstance(low.values.get(source), Score) for source in node.all_input_nodes):
        low.values[node] = attention.score(low, node, name)
        return
    if any(isinstance(low.values.get(source), Extended) for source in node.all_input_nodes):
        low.values[node] = convolution.extended(low, node, name)
        return
    rule = RULES.get(name)
    if rule is not None:
        low.values[node] = rule(low, node, name)
    elif name in pointwise.POINTWISE:
        low.values[node] = low.pointwise(node, name)
    else:
        raise low.refuse(node, "no rule for this operator")


def _along_rows(low: Lowering, node: Node, name: str) -> Any:
    raise low.refuse(node, "it reads along the sequence")


RULES: dict[str, Rule] = (
    dict.fromkeys(layout.SAME, layout.same)
    | dict.fromkeys(layout.RESHAPES, layout.reshape)
    | dict.fromkeys(("transpose", "permute", "t"), layout.transpose)
    | dict.fromkeys(("expand", "expand_as", "repeat"), layout.expand)
    | dict.fromkeys(("split", "split_with_sizes", "chunk", "unbind"), layout.split)
    | dict.fromkeys(("cat", "stack"), layout.cat)
    | dict.fromkeys(("index", "index_select"), layout.index)
    | dict.fromkeys(("linear", "addmm"), products.linear)
    | dict.fromkeys(("mm", "matmul", "bmm"), attention.product)
    | dict.fromkeys(reductions.REDUCTIONS, reductions.reduction)
    | dict.fromkeys(("cumsum", "roll", "flip", "diff"), _along_rows)
    | {
        "constant_pad_nd": convolution.pad,
        "convolution": convolution.convolution,
        "repeat_interleave": layout.repeat_interleave,
        "slice": layout.slice_,
        "select": layout.select,
        "embedding": products.embedding,
        "baddbmm": attention.scaled_product,
        "attention": attention.declared,
        "scaled_dot_product_attention": attention.fused,
        "softmax": reductions.softmax,
        "layer_norm": reductions.layer_norm,
        "rms_norm": reductions.rms_norm,
    }
)
