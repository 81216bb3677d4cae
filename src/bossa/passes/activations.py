"""Activations that a model writes out, recognised by what they compute: `gelu_tanh`, `gelu`, `silu`, `sigmoid`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bossa.ir.functions import FUNCTIONS, Array
from bossa.ir.program import Op, Program
from bossa.ir.values import Apply, Cat, Const, Expr, View, views
from bossa.ops import Linear, Map, Reduce
from bossa.passes.rewrite import straight_ops

KNOWN = ("gelu_tanh", "gelu", "silu", "sigmoid")
_CLUES = frozenset(("tanh", "erf", "sigmoid", "exp"))

_POINTS = np.concatenate([np.linspace(-40, 40, 3201), *(sign * np.logspace(-8, 8, 65) for sign in (1.0, -1.0))])
"""Where two functions are compared: closely around zero, and far out, where a clamp would show."""
_TOLERANCE = 1e-7
"""Of the larger of 1 and the argument: models write 0.79788456 for the square root of two over pi."""


def name_activations(program: Program) -> Program:
    """Replace each expression of one operand that equals a known activation, however it is written, by its name."""
    body: list[Op] = []
    for op in straight_ops(program):
        match op:
            case Map() | Reduce():
                op = replace(op, expr=_named(op.expr))
            case Linear(epilogue=expr) if expr is not None:
                op = replace(op, epilogue=_named(expr))
        body.append(op)
    return replace(program, body=tuple(body))


def _named(expr: Expr) -> Expr:
    match expr:
        case Apply():
            found = _recognised(expr)
            return found or replace(expr, args=tuple(_named(arg) for arg in expr.args))
        case Cat():
            return replace(expr, parts=tuple(_named(part) for part in expr.parts))
        case _:
            return expr


def _recognised(expr: Apply) -> Apply | None:
    """The activation that `expr` is of one of its parts; None where it is none."""
    applied = [part for part in _parts(expr) if isinstance(part, Apply)]
    if len(applied) < 2 or not _CLUES & {part.function for part in applied}:
        return None
    for operand in dict.fromkeys(_parts(expr)):
        if operand == expr or isinstance(operand, Const) or any(True for _ in views(_without(expr, operand))):
            continue
        with np.errstate(all="ignore"):
            values = _value(expr, operand)
            for name in KNOWN:
                error = np.abs(values - FUNCTIONS[name].numpy(_POINTS)) / np.maximum(np.abs(_POINTS), 1.0)
                if bool((error <= _TOLERANCE).all()):
                    return Apply(name, (_named(operand),))
    return None


def _parts(expr: Expr) -> Iterator[Expr]:
    yield expr
    if isinstance(expr, Apply):
        for arg in expr.args:
            yield from _parts(arg)


def _without(expr: Expr, operand: Expr) -> Expr:
    """The expression with a number in the operand's place."""
    if expr == operand:
        return Const(0.0)
    return replace(expr, args=tuple(_without(arg, operand) for arg in expr.args)) if isinstance(expr, Apply) else expr


def _value(expr: Expr, operand: Expr) -> Array:
    """What the expression is where its operand takes the values of `_POINTS`."""
    if expr == operand:
        return _POINTS
    match expr:
        case Const():
            return np.asarray(expr.value)
        case Apply():
            return FUNCTIONS[expr.function].numpy(*(_value(arg, operand) for arg in expr.args))
        case View() | Cat():
            raise AssertionError("an expression of its operand alone has no other view")
