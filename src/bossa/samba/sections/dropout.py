"""Dropout as a graph sees it: the rate and the mask are inputs, so that neither is ever a constant of a program.

While a module is traced, `DropoutSites` writes every dropout that it does, attention's and recurrent layers' too, as a
product with a mask that the custom operator ``bossa::noise`` stands for. `bossa.samba.sections.draws` then makes these
into inputs, and draws them at run time exactly as eager torch does on a CPU: the same seed gives the same masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  as everyone calls it
from torch.overrides import TorchFunctionMode

from bossa.samba.sections import recurrent

Kind = Literal["scale", "alpha"]

ALPHA = 1.7580993408473766
"""Of SELU: what alpha dropout sets a dropped element to is minus this, before it is made to keep mean and variance."""

Wanted = Callable[[int, float], bool]


@dataclass(frozen=True)
class Site:
    """One dropout of a forward pass: its own rate, and whether it is ``x · mask / (1 - p)`` or alpha dropout."""

    rate: float
    kind: Kind


@torch.library.custom_op("bossa::noise", mutates_args=(), tags=[torch.Tag.nondeterministic_seeded])
def noise(like: torch.Tensor, shape: Sequence[int], site: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which elements are kept, of ``shape``, laid out as ``like`` where it has that shape; and the coefficients.

    Coefficients are ``[1 / (1 - p)]`` or, for alpha dropout, ``[a, α·a, α·a·p]``, of the type of ``like``.
    """
    raise NotImplementedError("bossa::noise only stands for an input of a graph")


@noise.register_fake
def _(like: torch.Tensor, shape: Sequence[int], site: int) -> tuple[torch.Tensor, torch.Tensor]:
    alike = tuple(shape) == tuple(like.shape)
    mask = torch.empty_like(like, dtype=torch.bool) if alike else like.new_empty(shape, dtype=torch.bool)
    return mask, like.new_empty([3])


def coefficients(site: Site, rate: float, dtype: torch.dtype) -> torch.Tensor:
    """The second result of ``bossa::noise`` for a rate, rounded as torch's own dropout rounds it. `[3]`"""
    if site.kind == "alpha":
        if rate == 1.0:
            return torch.zeros(3, dtype=dtype)
        a = 1.0 / math.sqrt((ALPHA * ALPHA * rate + 1) * (1 - rate))
        return torch.tensor([a, ALPHA * a, ALPHA * a * rate], dtype=dtype)
    return torch.ones(3, dtype=dtype).div_(1 - rate) if rate < 1.0 else torch.zeros(3, dtype=dtype)


class _Rate(float):
    """A rate that is asked for also where it is zero: ``if dropout_p > 0`` in torch's attention is then true."""

    def __gt__(self, other: float) -> bool:
        return other == 0 or float(self) > other


class DropoutSites(TorchFunctionMode):
    """Within it, dropouts in training are written with ``bossa::noise``, and `sites` lists them in their order.

    Args:
        callers: the modules being called, the innermost last, kept up to date by who traces.
        wanted: tells by the number of a site and its rate whether it drops; where it does not, the graph has no trace
            of it.
    """

    def __init__(self, callers: Sequence[nn.Module], wanted: Wanted) -> None:
        super().__init__()
        self.sites: list[Site] = []
        self.dropped: list[bool] = []
        self._callers = callers
        self._wanted = wanted

    def _add(self, p: float, kind: Kind) -> None:
        self.dropped.append(self._wanted(len(self.sites), float(p)))
        self.sites.append(Site(float(p), kind))

    def drop(self, x: torch.Tensor, p: float, kind: Kind = "scale", feature: bool = False) -> torch.Tensor:
        """Dropout of x at a new site: `x.shape` in and out."""
        number = len(self.sites)
        self._add(p, kind)
        if not self.dropped[number]:
            return x
        shape = [*x.shape[:2], *[1] * (x.dim() - 2)] if feature else list(x.shape)
        mask, coefficient = noise(x.detach(), shape, number)
        if kind == "scale":
            return x * (mask * coefficient[0])
        kept = mask.to(x.dtype)
        return x * (kept * coefficient[0]) + ((kept - 1) * coefficient[1] + coefficient[2])

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _COMPOSITE:
            if func is F.multi_head_attention_forward and kwargs.get("training", True):
                args = (*args[:_MHA_DROPOUT], _Rate(args[_MHA_DROPOUT]), *args[_MHA_DROPOUT + 1 :])
            with self:
                return _COMPOSITE[func](*args, **kwargs)
        if func in _DROPOUTS:
            return self._dropout(*_DROPOUTS[func], *args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func in recurrent.STACKS:
            return recurrent.layer_by_layer(func, args, self.drop)
        return func(*args, **kwargs)

    def _dropout(
        self, kind: Kind, feature: bool, in_place: bool, x: torch.Tensor, p: float, train: bool
    ) -> torch.Tensor:
        if not train or x.numel() == 0:
            return x
        result = self.drop(x, p, kind, feature)
        return x.copy_(result) if in_place else result

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float | None = None,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """Attention, whose weights are dropped where it is given a rate: written out, as torch itself then does it.

        A rate of zero that is given says nothing by itself: it counts where the module that gives it is training.
        """
        training = bool(self._callers) and self._callers[-1].training
        if dropout_p is None or (not dropout_p and not training):
            return _plain_attention(query, key, value, attn_mask, is_causal, scale, enable_gqa)
        if not self._wanted(len(self.sites), float(dropout_p)):
            self._add(dropout_p, "scale")
            return _plain_attention(query, key, value, attn_mask, is_causal, scale, enable_gqa)
        return _written_out(
            query, key, value, attn_mask, lambda w: self.drop(w, dropout_p), is_causal, scale, enable_gqa
        )


def _plain_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> torch.Tensor:
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
    )


def _written_out(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    drop: Callable[[torch.Tensor], torch.Tensor],
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> torch.Tensor:
    """The formula of torch's ``_scaled_dot_product_attention_math``, rounded as it rounds."""
    dtype = query.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    root = math.sqrt(1 / math.sqrt(query.size(-1)) if scale is None else scale)
    weights = torch.matmul(query * root, (key * root).transpose(-2, -1))
    if is_causal:
        attn_mask = query.new_ones((query.size(-2), key.size(-2)), dtype=torch.bool).tril()
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -math.inf)
        weights = torch._safe_softmax(weights + attn_mask, -1)
    else:
        weights = torch.softmax(weights, -1)
    return torch.matmul(drop(weights), value).to(dtype)


def _without_overrides(function: Any) -> Callable[..., Any]:
    """The function with its own test for a `TorchFunctionMode` always false, so that what it calls is seen instead."""
    names = dict.fromkeys(
        ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"), lambda *_: False
    )
    copy = FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_COMPOSITE: dict[Callable[..., Any], Callable[..., Any]] = {
    function: _without_overrides(function)
    for function in (
        F.dropout,
        F.dropout1d,
        F.dropout2d,
        F.dropout3d,
        F.alpha_dropout,
        F.feature_alpha_dropout,
        F.multi_head_attention_forward,
    )
}
"""Functions in Python around those below."""

_MHA_DROPOUT = 10
"""The place of ``dropout_p`` among the arguments of ``multi_head_attention_forward``."""

_DROPOUTS: dict[Callable[..., Any], tuple[Kind, bool, bool]] = {
    torch.dropout: ("scale", False, False),
    torch.dropout_: ("scale", False, True),
    torch.feature_dropout: ("scale", True, False),
    torch.feature_dropout_: ("scale", True, True),
    torch.alpha_dropout: ("alpha", False, False),
    torch.alpha_dropout_: ("alpha", False, True),
    torch.feature_alpha_dropout: ("alpha", True, False),
    torch.feature_alpha_dropout_: ("alpha", True, True),
}
"""For each: its kind, whether it drops whole features, and whether it works in place."""
