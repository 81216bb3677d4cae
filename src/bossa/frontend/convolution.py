"""Rules for convolutions along the rows, recognised by what they compute: padding, a convolution, a cut to the rows.

What is padded, or longer than the sequence, is no operand: it is kept as it is until a cut makes rows of it again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch.fx import Node

from bossa.frontend.layout import SAME
from bossa.frontend.lowering import Lowering
from bossa.frontend.operand import Operand, drop, fresh
from bossa.ir.values import Apply
from bossa.ops import Map
from bossa.ops.causal_conv import LONGEST_REACH, MOST_TAPS, CausalConv


@dataclass(frozen=True)
class Extended:
    """Rows with zeros before and behind them, and perhaps a convolution over that.

    Attributes:
        x: ``[1, C, T]``.
        before, behind: zeros on either side.
        weight: ``[C, 1, taps]``; None where there is no convolution yet.
        bias: ``[C]``.
        dilation: rows from one tap to the next.
    """

    x: Operand
    before: int = 0
    behind: int = 0
    weight: Operand | None = None
    bias: Operand | None = None
    dilation: int = 1

    @property
    def reach(self) -> int:
        """Rows from the first tap to the last."""
        return 0 if self.weight is None else (int(self.weight.shape[2] or 1) - 1) * self.dilation

    @property
    def more(self) -> int:
        """Elements along the rows' axis more than rows."""
        return self.before + self.behind - self.reach


def pad(low: Lowering, node: Node, name: str) -> Any:
    """``constant_pad_nd`` by zeros, along the rows."""
    source, widths = node.args[0], [int(width) for width in node.args[1]]
    value = float(node.args[2] if len(node.args) > 2 else node.kwargs.get("value") or 0)
    x = low.operand(node, source)
    axis = x.row_axis
    sides = [tuple(widths[i : i + 2]) for i in range(0, len(widths), 2)]  # of the last axis first
    padded = [len(x.shape) - 1 - place for place, side in enumerate(sides) if side != (0, 0)]
    if value or padded != [axis] or len(x.shape) != 3 or axis != 2:
        raise low.refuse(node, "padding other than by zeros, before or behind the rows of [1, channels, rows]")
    before, behind = sides[len(x.shape) - 1 - axis]
    if min(before, behind) < 0:
        raise low.refuse(node, "it takes some of the rows")
    return _closed(low, node, Extended(x, before, behind))


def convolution(low: Lowering, node: Node, name: str) -> Any:
    """A convolution of each channel along the rows.

    Raises:
        CompileError: it mixes channels, or is not along the rows.
    """
    source, weights, biases, stride, padding, dilation, transposed, _, groups = node.args
    held = low.values.get(source)
    given = held if isinstance(held, Extended) and held.weight is None else Extended(low.operand(node, source))
    weight = low.operand(node, weights)
    along = len(given.x.shape) == 3 and given.x.row_axis == 2 and given.x.shape[0] == 1
    if not along or weight.space != "weight" or len(weight.shape) != 3:
        raise low.refuse(node, "a convolution other than of [1, channels, rows] along the rows")
    channels, taps = given.x.shape[1], int(weight.shape[2] or 1)
    if list(stride) != [1] or transposed or groups != channels or weight.shape[:2] != (channels, 1):
        raise low.refuse(node, "a convolution that mixes channels or takes some of the rows")
    if taps > MOST_TAPS or (taps - 1) * dilation[0] > LONGEST_REACH:
        raise low.refuse(node, f"a convolution of {taps} taps, {dilation[0]} rows apart, is too long")
    bias = None if biases is None else low.operand(node, biases)
    both = int(padding[0])
    extended = replace(
        given,
        before=given.before + both,
        behind=given.behind + both,
        weight=weight,
        bias=bias,
        dilation=int(dilation[0]),
    )
    return _closed(low, node, extended)


def extended(low: Lowering, node: Node, name: str) -> Any:
    """Any operator on what is longer than the rows: a convolution, or a cut that makes rows of it again."""
    held = low.values[node.args[0]] if isinstance(node.args[0], Node) else None
    if not isinstance(held, Extended):
        raise low.refuse(node, "it takes what is longer than the sequence together with something else")
    if name == "convolution":
        return convolution(low, node, name)
    if name in SAME:
        return held
    options = dict(zip(("axis", "start", "end", "step"), node.args[1:], strict=False))
    axis, start = int(options.get("axis", 0)) % 3, int(options.get("start") or 0)
    if name != "slice" or axis != 2 or int(options.get("step", 1)) != 1 or start < 0:
        raise low.refuse(node, "what is longer than the sequence is used otherwise than cut to its rows")
    if low.shape(node)[2] is not None or start > held.more:
        raise low.refuse(node, "a cut to something else than the rows")
    return _rows(low, node, held, start)


def _closed(low: Lowering, node: Node, held: Extended) -> Any:
    """The rows, where there are as many as in the sequence."""
    return _rows(low, node, held, 0) if held.more == 0 else held


def _rows(low: Lowering, node: Node, held: Extended, start: int) -> Operand:
    """As many elements as there are rows, from `start` on."""
    delay = held.before - start - held.reach
    if delay < 0:
        raise low.refuse(node, "it reads rows that come later in the sequence")
    if held.weight is None:
        if delay:
            raise low.refuse(node, "it moves rows along the sequence")
        return held.x
    if delay + held.reach > LONGEST_REACH:
        raise low.refuse(node, f"it reaches back more than {LONGEST_REACH} rows")
    x = drop(held.x, 0)  # [C, T]
    if x.space != "value" or x.strides[0] != 1:
        x = low.copy(x)
    out = low.value((x.shape[0],))
    weight = drop(held.weight, 1).view()
    if delay + held.reach == 0:  # each row by itself
        scale = replace(weight, shape=weight.shape[:1], strides=weight.strides[:1])
        low.ops.append(Map(out, low.use_flat(Apply("mul", (x.view(), scale)))))
    else:
        taps = low.use_flat(weight)
        low.ops.append(CausalConv(out, x.view(), taps, low.layers, held.dilation, delay))  # type: ignore[arg-type]
        low.layers += 1
    result = fresh("value", out.name, (1, x.shape[0], None))
    return result if held.bias is None else _biased(low, node, result, held.bias)


def _biased(low: Lowering, node: Node, x: Operand, bias: Operand) -> Operand:
    per_channel = replace(x, space=bias.space, name=bias.name, strides=(0, bias.strides[0], 0), offset=bias.offset)
    return low.map(x.shape, Apply("add", (x.view(), per_channel.view())))
