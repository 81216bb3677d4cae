"""How names, shapes, views and expressions are written in a program's text."""

from __future__ import annotations

import json
import re

from bossa.ir.values import Apply, Cat, Const, Expr, Shape, Space, Value, View

SIGILS: dict[Space, str] = {"value": "%", "weight": "$", "table": "!", "acc": "#"}
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+")


def show_dims(shape: Shape) -> str:
    """``12,64``."""
    return ",".join(map(str, shape))


def show_name(space: Space, name: str) -> str:
    """``%v3``, or in quotes where it has other letters."""
    return SIGILS[space] + (name if PLAIN.fullmatch(name) else json.dumps(name))


def show_value(value: Value) -> str:
    """``%v3[12,64]``."""
    return f"{show_name('value', value.name)}[{show_dims(value.shape)}]"


def show_expr(expr: Expr) -> str:
    """An expression on one line."""
    match expr:
        case Const():
            return repr(float(expr.value))
        case View():
            strides = "" if expr.contiguous else f"|{show_dims(expr.strides)}"
            offset = f"+{expr.offset}" if expr.offset else ""
            return f"{show_name(expr.space, expr.name)}[{show_dims(expr.shape)}{strides}]{offset}"
        case Apply():
            return f"{expr.function}({', '.join(map(show_expr, expr.args))})"
        case Cat():
            parts = ", ".join(f"{size}: {show_expr(p)}" for size, p in zip(expr.sizes, expr.parts, strict=True))
            return f"cat<{expr.axis}>({parts})"
