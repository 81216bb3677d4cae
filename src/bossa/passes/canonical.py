"""Canonical form: no axes of length one, no copies that change nothing, keys and values once a group."""

from __future__ import annotations

from dataclasses import replace

from bossa.ir.program import Op, Program
from bossa.ir.values import Apply, Cat, Expr, Shape, Value, View
from bossa.ops import Attention, Embed, Linear, Map, Reduce
from bossa.passes.rewrite import drop_dead, straight_ops


def squeeze(program: Program) -> Program:
    """Drop the axes of length one from every value and domain."""
    body: list[Op] = []
    for op in straight_ops(program):
        match op:
            case Map():
                expr = _squeeze_expr(op.expr, op.out.shape)
                body.append(Map(_squeezed(op.out), expr))
            case Reduce():
                expr = _squeeze_expr(op.expr, op.domain)
                axes = sum(extent != 1 for extent in op.domain[len(op.domain) - op.axes :])
                if axes == 0:  # a reduction over nothing
                    body.append(Map(_squeezed(op.out), expr))
                else:
                    domain = tuple(extent for extent in op.domain if extent != 1)
                    body.append(Reduce(_squeezed(op.out), op.kind, domain, axes, expr))
            case Linear():
                body.append(replace(op, out=_squeezed(op.out), x=_squeeze_view(op.x, (*op.x.shape[:-1], 0))))
            case Embed():
                body.append(replace(op, out=_squeezed(op.out)))
            case _:
                body.append(op)
    return replace(program, body=tuple(body))


def _squeezed(value: Value) -> Value:
    return Value(value.name, tuple(extent for extent in value.shape if extent != 1))


def _squeeze_view(view: View, domain: Shape) -> View:
    """The view without the axes that have length one in `domain`."""
    kept = [axis for axis, extent in enumerate(domain) if extent != 1]
    return replace(view, shape=tuple(view.shape[a] for a in kept), strides=tuple(view.strides[a] for a in kept))


def _squeeze_expr(expr: Expr, domain: Shape) -> Expr:
    match expr:
        case View():
            return _squeeze_view(expr, domain)
        case Apply():
            return replace(expr, args=tuple(_squeeze_expr(arg, domain) for arg in expr.args))
        case Cat() if domain[expr.axis] == 1:
            return _squeeze_expr(expr.parts[0], domain)
        case Cat():
            axis = sum(extent != 1 for extent in domain[: expr.axis])
            return Cat(axis, expr.sizes, tuple(_squeeze_expr(part, domain) for part in expr.parts))
        case _:
            return expr


def drop_copies(program: Program) -> Program:
    """Read through maps that only copy a whole value."""
    source: dict[str, str] = {}
    values: dict[str, Value] = {}
    body: list[Op] = []

    def through(view: View) -> View:
        return replace(view, name=source.get(view.name, view.name)) if view.space == "value" else view

    for op in straight_ops(program):
        op = op.map_operands(through)
        if isinstance(op, Map) and isinstance(op.expr, View) and op.expr.space == "value":
            base = values[op.expr.name]
            if op.expr.identity_of(base.size):
                source[op.out.name] = base.name
                continue
        values[op.out.name] = op.out
        body.append(op)
    output = source.get(program.output, program.output)
    return drop_dead(replace(program, body=tuple(body), output=output))


def share_heads(program: Program) -> Program:
    """Keys and values that were repeated for each query head of a group: attend to them once a group."""
    made = {op.out.name: op for op in straight_ops(program) if isinstance(op, Map)}
    body: list[Op] = []
    for op in straight_ops(program):
        if isinstance(op, Attention):
            k, v = _grouped(op.k, made), _grouped(op.v, made)
            if k is not None and v is not None and k.shape[0] == v.shape[0]:
                op = replace(op, k=k, v=v)
        body.append(op)
    return drop_dead(replace(program, body=tuple(body)))


def _grouped(view: View, made: dict[str, Map]) -> View | None:
    """``[G, D]`` of a view ``[H, D]`` that repeats each of G heads; None where it does not."""
    heads, features = view.shape
    if heads > 1 and view.strides[0] == 0:
        return replace(view, shape=(1, features), strides=(features, view.strides[1]))
    copied = made.get(view.name)
    if copied is None or not isinstance(copied.expr, View) or not view.identity_of(copied.out.size):
        return None
    base = copied.expr
    if base.space != "value" or base.strides[-1] != 1:
        return None
    match base.shape:
        case (groups, repeats, d) if groups * repeats == heads and d == features and base.strides[1] == 0:
            return replace(base, shape=(groups, d), strides=(base.strides[0], 1))
        case (repeats, d) if repeats == heads and d == features and base.strides[0] == 0:
            return replace(base, shape=(1, d), strides=(d, 1))
        case _:
            return None


def canonical(program: Program) -> Program:
    """All of the above, once each, in the order in which one helps the next."""
    return share_heads(drop_copies(squeeze(drop_dead(program))))
