"""Row programs as text, printed for people and for the PEF; `parse` reads it back."""

from __future__ import annotations

import json
import re

from bossa.ir.program import (
    Apply,
    Attention,
    Cat,
    Const,
    Embed,
    Expr,
    Linear,
    Loop,
    Map,
    Op,
    Program,
    Reduce,
    Select,
    Shape,
    Space,
    Value,
    View,
)

SIGILS: dict[Space, str] = {"value": "%", "weight": "$", "table": "!", "acc": "#"}
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+")


def _dims(shape: Shape) -> str:
    return ",".join(map(str, shape))


def _name(space: Space, name: str) -> str:
    return SIGILS[space] + (name if PLAIN.fullmatch(name) else json.dumps(name))


def _value(value: Value) -> str:
    return f"{_name('value', value.name)}[{_dims(value.shape)}]"


def show_expr(expr: Expr) -> str:
    """An expression on one line."""
    match expr:
        case Const():
            return repr(float(expr.value))
        case View():
            strides = "" if expr.contiguous else f"|{_dims(expr.strides)}"
            offset = f"+{expr.offset}" if expr.offset else ""
            return f"{_name(expr.space, expr.name)}[{_dims(expr.shape)}{strides}]{offset}"
        case Apply():
            return f"{expr.function}({', '.join(map(show_expr, expr.args))})"
        case Cat():
            parts = ", ".join(f"{size}: {show_expr(p)}" for size, p in zip(expr.sizes, expr.parts, strict=True))
            return f"cat<{expr.axis}>({parts})"


def show(op: Op, indent: str = "") -> str:
    """An op on one line (a loop: on several)."""
    if isinstance(op, Loop):
        lines = [f"{indent}loop {op.count} layers {op.layers} {{"]
        for c in op.carried:
            lines.append(
                f"{indent}  carry {_name('value', c.init)} as {_value(c.inner)} next {_name('value', c.step)}"
                f" result {_value(c.result)}"
            )
        for formal, actual in op.weights:
            lines.append(f"{indent}  weight {json.dumps(formal)} is {json.dumps(list(actual))}")
        lines += [show(inner, indent + "  ") for inner in op.body]
        return "\n".join([*lines, f"{indent}}}"])
    head = f"{indent}{_value(op.out)} = "
    match op:
        case Embed():
            index = "tokens" if op.index == "tokens" else _name("table", op.index)
            return f"{head}embed {_name('weight', op.weight)} {index}"
        case Linear():
            bias = "" if op.bias is None else f" bias {_name('weight', op.bias)}"
            parts = "" if op.parts == 1 else f" parts {op.parts}"
            epilogue = "" if op.epilogue is None else f" then {show_expr(op.epilogue)}"
            return f"{head}linear {show_expr(op.x)} {_name('weight', op.weight)}{bias}{parts}{epilogue}"
        case Map():
            return f"{head}map {show_expr(op.expr)}"
        case Reduce():
            return f"{head}reduce {op.kind} {op.axes} [{_dims(op.domain)}] {show_expr(op.expr)}"
        case Attention():
            bias = "" if op.bias is None else f" bias {_name('table', op.bias)}"
            sinks = "" if op.sinks is None else f" sinks {_name('weight', op.sinks)}"
            return (
                f"{head}attention {show_expr(op.q)} {show_expr(op.k)} {show_expr(op.v)} layer {op.layer}"
                f" scale {op.scale!r} window {op.window} softcap {op.softcap!r}{bias}{sinks}"
            )
        case Select():
            return f"{head}select {show_expr(op.x)}"


def print_program(program: Program) -> str:
    """The whole program; the tables' contents are not in it."""
    lines = [
        f"program {json.dumps(program.name)} vocabulary {program.vocab_size} positions {program.max_seq_length}"
        f" output {_name('value', program.output)}"
    ]
    for name, table in program.tables.items():
        lines.append(f"table {_name('table', name)} {table.dtype.name} [{_dims(table.shape)}]")
    lines += [f"slot {json.dumps(slot.to_json())}" for slot in program.slots.values()]
    lines += [show(op) for op in program.body]
    return "\n".join(lines) + "\n"
