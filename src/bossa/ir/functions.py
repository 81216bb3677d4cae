"""The pointwise functions of the row program: name, number of arguments, and NumPy meaning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import erf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Function:
    """A pointwise function: how many arguments it takes and what NumPy computes for it."""

    arity: int
    numpy: Callable[..., Array]


_erf = np.vectorize(erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _softplus(x: Array) -> Array:
    return np.logaddexp(np.zeros_like(x), x)


def _gelu(x: Array) -> Array:
    return np.asarray((0.5 * x * (1.0 + _erf(x / sqrt(2.0)))).astype(x.dtype))


def _gelu_tanh(x: Array) -> Array:
    inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
    return np.asarray(0.5 * x * (1.0 + np.tanh(inner)))


def _where(condition: Array, a: Array, b: Array) -> Array:
    return np.where(condition != 0, a, b)


def _truth(test: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda a, b: test(a, b).astype(np.result_type(a, np.float32))


FUNCTIONS: dict[str, Function] = {
    "add": Function(2, np.add),
    "sub": Function(2, np.subtract),
    "mul": Function(2, np.multiply),
    "div": Function(2, np.divide),
    "min": Function(2, np.minimum),
    "max": Function(2, np.maximum),
    "pow": Function(2, np.power),
    "neg": Function(1, np.negative),
    "abs": Function(1, np.abs),
    "sqrt": Function(1, np.sqrt),
    "rsqrt": Function(1, lambda x: 1.0 / np.sqrt(x)),
    "reciprocal": Function(1, lambda x: 1.0 / x),
    "floor": Function(1, np.floor),
    "exp": Function(1, np.exp),
    "log": Function(1, np.log),
    "sin": Function(1, np.sin),
    "cos": Function(1, np.cos),
    "tanh": Function(1, np.tanh),
    "sigmoid": Function(1, _sigmoid),
    "erf": Function(1, lambda x: _erf(x).astype(x.dtype)),
    "relu": Function(1, lambda x: np.maximum(x, 0)),
    "silu": Function(1, lambda x: x * _sigmoid(x)),
    "gelu": Function(1, _gelu),
    "gelu_tanh": Function(1, _gelu_tanh),
    "softplus": Function(1, _softplus),
    "lt": Function(2, _truth(np.less)),
    "le": Function(2, _truth(np.less_equal)),
    "gt": Function(2, _truth(np.greater)),
    "ge": Function(2, _truth(np.greater_equal)),
    "eq": Function(2, _truth(np.equal)),
    "ne": Function(2, _truth(np.not_equal)),
    "where": Function(3, _where),
}
