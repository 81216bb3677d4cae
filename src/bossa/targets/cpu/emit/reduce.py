"""``reduce`` as C++: sixteen lanes in order, then one fixed tree."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from bossa.ir.values import Apply, Cat, Const, Expr, Shape, View, contiguous_strides
from bossa.ops import Reduce
from bossa.targets.cpu.emit.emitter import Emitter
from bossa.targets.cpu.emit.expressions import number
from bossa.targets.cpu.emit.loops import boxes, pieces
from bossa.targets.cpu.emit.names import address, lanes_of
from bossa.targets.cpu.emit.rows import RowWriter

_START = {"sum": "0.0f", "mean": "0.0f", "max": "-kInfinity", "min": "kInfinity"}
_COMBINE = {"sum": "{0} + {1}", "mean": "{0} + {1}", "max": "max({0}, {1})", "min": "min({0}, {1})"}
_TREE = {"sum": "sum", "mean": "sum", "max": "maximum", "min": "minimum"}


class ReduceEmitter(Emitter[Reduce]):
    """Each result is a chain over its elements in order, on sixteen lanes."""

    def write_row(self, writer: RowWriter, op: Reduce, out: str) -> None:
        kept = len(op.domain) - op.axes
        for starts, shape, expr in pieces(op.expr, op.domain, kept):
            _write_piece(writer, op, out, starts[:kept], shape[:kept], expr)


def _write_piece(writer: RowWriter, op: Reduce, out: str, starts: Shape, outer: Shape, expr: Expr) -> None:
    """The results from `starts` on, `outer` of them; `expr` has no joins along those axes."""
    inner = op.domain[len(outer) :]
    indices = [f"a{axis}" for axis in range(len(outer))]
    pad = "    "
    for axis, extent in enumerate(outer):
        writer.lines.append(f"{pad}for (int a{axis} = 0; a{axis} < {extent}; a{axis}++) {{")
        pad += "  "
    total = lanes_of(out)
    writer.lines.append(f"{pad}f16 {total} = splat({_START[op.kind]});")
    bases: dict[str, str] = {}
    fixed = _fix_outer(expr, indices, bases, writer.names.pointer)

    def accumulate(code: str, at: str, n: str | None, step: int) -> list[str]:
        if n is not None:
            code = f"where(lane_mask_n({n}), {code}, splat({_START[op.kind]}))"
        return [f"{total} = {_COMBINE[op.kind].format(total, code)};"]

    for box in boxes(fixed, inner):
        writer.box(box, accumulate, pad, bases)
    result = f"{_TREE[op.kind]}({total})"
    if op.kind == "mean":
        result += f" / {number(float(prod(inner)))}"
    strides = contiguous_strides(op.out.shape)
    first = sum(start * stride for start, stride in zip(starts, strides, strict=True))
    at = " + ".join(part for part in (str(first) if first else "", address(indices, strides)) if part)
    writer.lines.append(f"{pad}{out}[{at or '0'}] = {result};")
    for _ in outer:
        pad = pad[:-2]
        writer.lines.append(f"{pad}}}")


def _fix_outer(expr: Expr, indices: list[str], bases: dict[str, str], pointer: Callable[[View], str]) -> Expr:
    """The expression over the inner axes alone; `bases` gets, by new names, the pointers that the outer ones move."""
    count = len(indices)

    def fixed(parts: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(_fix_outer(part, indices, bases, pointer) for part in parts)

    match expr:
        case View():
            moved = address(indices, expr.strides[:count])
            base = " + ".join(part for part in (pointer(expr), moved) if part)
            name = next((known for known, pointed in bases.items() if pointed == base), str(len(bases)))
            bases[name] = base
            return View(expr.space, name, expr.shape[count:], expr.strides[count:], expr.offset)
        case Apply():
            return Apply(expr.function, fixed(expr.args))
        case Cat():
            return Cat(expr.axis - count, expr.sizes, fixed(expr.parts))
        case Const():
            return expr
