"""Which row-program expression each pointwise aten operator is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bossa.ir.values import Apply, Const, Expr


def call(function: str, *args: Expr) -> Expr:
    return Apply(function, args)


def number(value: float) -> Const:
    return Const(float(value))


def power(x: Expr, exponent: Expr) -> Expr:
    """x ** n, as products where n is a small whole number: a product has the bits PyTorch computes."""
    if isinstance(exponent, Const):
        n = exponent.value
        if n == 1:
            return x
        if n == 2:
            return call("mul", x, x)
        if n == 3:
            return call("mul", call("mul", x, x), x)
        if n == 4:
            square = call("mul", x, x)
            return call("mul", square, square)
        if n == 0.5:
            return call("sqrt", x)
        if n == -0.5:
            return call("rsqrt", x)
        if n == -1:
            return call("reciprocal", x)
    return call("pow", x, exponent)


def _scaled(function: str) -> Callable[..., Expr]:
    """add and sub, whose second operand may carry a factor alpha."""

    def build(a: Expr, b: Expr, alpha: Expr = Const(1.0)) -> Expr:
        factor = alpha.value if isinstance(alpha, Const) else 1.0
        return call(function, a, b if factor == 1 else call("mul", b, number(factor)))

    return build


def _clamp(x: Expr, min: Expr | None = None, max: Expr | None = None) -> Expr:  # noqa: A002  PyTorch's names
    if min is not None:
        x = call("max", x, min)
    return x if max is None else call("min", x, max)


def _gelu(x: Expr, approximate: Any = "none") -> Expr:
    return call("gelu_tanh" if approximate == "tanh" else "gelu", x)


def _softplus(x: Expr, beta: Expr = Const(1.0), threshold: Expr = Const(20.0)) -> Expr:
    if beta == Const(1.0):
        soft = call("softplus", x)
    else:
        soft = call("div", call("softplus", call("mul", x, beta)), beta)
    return call("where", call("gt", call("mul", x, beta), threshold), x, soft)


def _masked_fill(x: Expr, mask: Expr, value: Expr) -> Expr:
    return call("where", mask, value, x)


def _leaky(x: Expr, slope: Expr = Const(0.01)) -> Expr:
    return call("where", call("gt", x, number(0)), x, call("mul", x, slope))


def _elu(x: Expr, alpha: Expr = Const(1.0), scale: Expr = Const(1.0), input_scale: Expr = Const(1.0)) -> Expr:
    below = call("mul", alpha, call("sub", call("exp", call("mul", x, input_scale)), number(1)))
    return call("mul", scale, call("where", call("gt", x, number(0)), x, below))


def _relu6(x: Expr) -> Expr:
    return _clamp(x, number(0), number(6))


def _sign(x: Expr) -> Expr:
    return call("sub", call("gt", x, number(0)), call("lt", x, number(0)))


def _simple(function: str) -> Callable[..., Expr]:
    return lambda *args: call(function, *args)


_UNARY = "neg abs sqrt rsqrt reciprocal floor exp log sin cos tanh sigmoid erf relu silu".split()

NAMED = frozenset("alpha approximate beta threshold min max".split())
"""Keyword arguments that say what an operator computes; the others say how."""

POINTWISE: dict[str, Callable[..., Expr]] = {name: _simple(name) for name in _UNARY} | {
    "add": _scaled("add"),
    "sub": _scaled("sub"),
    "rsub": lambda a, b, alpha=Const(1.0): _scaled("sub")(b, a, alpha),
    "mul": _simple("mul"),
    "div": _simple("div"),
    "true_divide": _simple("div"),
    "maximum": _simple("max"),
    "minimum": _simple("min"),
    "pow": power,
    "square": lambda x: power(x, Const(2.0)),
    "gelu": _gelu,
    "softplus": _softplus,
    "clamp": _clamp,
    "clamp_min": lambda x, low: _clamp(x, low),
    "clamp_max": lambda x, high: _clamp(x, None, high),
    "hardtanh": lambda x, low=Const(-1.0), high=Const(1.0): _clamp(x, low, high),
    "relu6": _relu6,
    "leaky_relu": _leaky,
    "elu": _elu,
    "hardsigmoid": lambda x: call("div", _relu6(call("add", x, number(3))), number(6)),
    "hardswish": lambda x: call("mul", x, call("div", _relu6(call("add", x, number(3))), number(6))),
    "log1p": lambda x: call("log", call("add", x, number(1))),
    "expm1": lambda x: call("sub", call("exp", x), number(1)),
    "log_sigmoid": lambda x: call("neg", call("softplus", call("neg", x))),
    "mish": lambda x: call("mul", x, call("tanh", call("softplus", x))),
    "erfc": lambda x: call("sub", number(1), call("erf", x)),
    "sign": _sign,
    "where": _simple("where"),
    "masked_fill": _masked_fill,
    "logical_not": lambda x: call("eq", x, number(0)),
    "bitwise_not": lambda x: call("eq", x, number(0)),
    "logical_and": _simple("mul"),
    "bitwise_and": _simple("mul"),
    "logical_or": _simple("max"),
    "bitwise_or": _simple("max"),
    **{name: _simple(name) for name in ("lt", "le", "gt", "ge", "eq", "ne")},
    "exp2": lambda x: call("exp", call("mul", x, number(0.6931471805599453))),
}


def layer_norm(x: Expr, mean: Expr, variance: Expr, eps: float, weight: Expr | None, bias: Expr | None) -> Expr:
    """(x - mean) / sqrt(variance + eps) * weight + bias."""
    y = call("mul", call("sub", x, mean), call("rsqrt", call("add", variance, number(eps))))
    if weight is not None:
        y = call("mul", y, weight)
    return y if bias is None else call("add", y, bias)


def rms_norm(x: Expr, mean_square: Expr, eps: float, weight: Expr | None) -> Expr:
    """x / sqrt(mean(x^2) + eps) * weight."""
    y = call("mul", x, call("rsqrt", call("add", mean_square, number(eps))))
    return y if weight is None else call("mul", y, weight)


def softmax(x: Expr, top: Expr) -> Expr:
    """exp(x - max), before the division by its sum."""
    return call("exp", call("sub", x, top))
