"""Fusing pointwise work: maps into the maps, reductions and linears that they feed or follow."""

from __future__ import annotations

from dataclasses import replace

from bossa.formats.geometry import PANEL
from bossa.ir.program import Op, Program, expressions
from bossa.ir.slot import Slot
from bossa.ir.values import Apply, Cat, Expr, Shape, Value, View, map_views, views
from bossa.ops import Linear, Map, Reduce
from bossa.passes.rewrite import straight_ops, uses


def inline_maps(program: Program) -> Program:
    """Compute a map inside its only reader, where the reader goes over it element by element."""
    counts = uses(program.body, program.output)
    pending: dict[str, Map] = {}
    body: list[Op] = []

    def absorb(expr: Expr, domain: Shape) -> Expr:
        """The expression with every pending map it reads in place of the view."""
        match expr:
            case View() if expr.space == "value" and expr.name in pending:
                return pending[expr.name].expr
            case Apply():
                return replace(expr, args=tuple(absorb(arg, domain) for arg in expr.args))
            case Cat():
                parts = tuple(
                    absorb(part, (*domain[: expr.axis], size, *domain[expr.axis + 1 :]))
                    for part, size in zip(expr.parts, expr.sizes, strict=True)
                )
                return replace(expr, parts=parts)
            case _:
                return expr

    def flush(op: Op) -> None:
        """Write out the pending maps that `op` reads other than element by element."""
        domain: Shape | None = op.out.shape if isinstance(op, Map) else op.domain if isinstance(op, Reduce) else None
        for expr in expressions(op):
            fits = {} if domain is None else _whole_reads(expr, domain, pending)
            for view in views(expr):
                if view.space == "value" and view.name in pending and not fits.get(view.name, False):
                    body.append(pending.pop(view.name))

    for op in straight_ops(program):
        flush(op)
        match op:
            case Map():
                op = replace(op, expr=absorb(op.expr, op.out.shape))
                if counts[op.out.name] == 1 and op.out.name != program.output:
                    pending[op.out.name] = op
                    continue
            case Reduce():
                op = replace(op, expr=absorb(op.expr, op.domain))
        body.append(op)
    return replace(program, body=tuple(body))


def _whole_reads(expr: Expr, domain: Shape, pending: dict[str, Map]) -> dict[str, bool]:
    """For each pending map read by `expr`: whether every read goes over all of it in the map's own domain."""
    found: dict[str, bool] = {}

    def visit(e: Expr, shape: Shape) -> None:
        match e:
            case View() if e.space == "value" and e.name in pending:
                made = pending[e.name].out
                good = e.shape == made.shape == shape and e.identity_of(made.size)
                found[e.name] = found.get(e.name, True) and good
            case Apply():
                for arg in e.args:
                    visit(arg, shape)
            case Cat():
                for part, size in zip(e.parts, e.sizes, strict=True):
                    visit(part, (*shape[: e.axis], size, *shape[e.axis + 1 :]))
            case _:
                pass

    visit(expr, domain)
    return found


def fuse_epilogues(program: Program) -> Program:
    """A map that is the only reader of a linear, and goes over it element by element, becomes its epilogue.

    Two linears of one input that meet in such a map (a gate and what it gates) become one linear of two parts.
    """
    counts = uses(program.body, program.output)
    slots = dict(program.slots)
    defined: dict[str, int] = {}
    body: list[Op | None] = []
    for op in straight_ops(program):
        index = len(body)
        fused = _as_epilogue(op, body, defined, counts, slots) if isinstance(op, Map) else None
        if fused is not None:
            linear, replaced = fused
            for at in replaced:
                body[at] = None
            op = linear
        body.append(op)
        defined[op.out.name] = index
    return replace(program, body=tuple(op for op in body if op is not None), slots=slots)


def _as_epilogue(
    op: Map,
    body: list[Op | None],
    defined: dict[str, int],
    counts: dict[str, int],
    slots: dict[str, Slot],
) -> tuple[Linear, list[int]] | None:
    if any(isinstance(part, Cat) for part in _parts(op.expr)):
        return None
    reads = list(views(op.expr))
    linears: list[tuple[int, Linear]] = []
    for name in dict.fromkeys(view.name for view in reads if view.space == "value"):
        made = body[defined[name]]
        if isinstance(made, Linear) and counts[name] == 1 and _plain(made):
            whole = all(v.identity_of(made.out.size) for v in reads if v.space == "value" and v.name == name)
            if whole:
                linears.append((defined[name], made))
    if not linears or len(op.out.shape) != 1:
        return None
    for view in reads:  # everything else is read one element an output, or is one number a row
        if len(view.strides) != 1 or view.strides[0] not in (0, 1):
            return None
    if len(linears) == 2 and _gate(linears[0][1], linears[1][1]):
        return _gated(op, linears, slots)
    at, linear = linears[-1]  # the last: what the epilogue adds to it is there by then
    return replace(linear, out=op.out, epilogue=_accumulate(op.expr, {linear.out.name: 0})), [at]


def _plain(op: Linear) -> bool:
    """Whether a linear is of one row vector, with nothing fused to it."""
    return op.epilogue is None and op.parts == 1 and len(op.x.shape) == len(op.out.shape) == 1


def _gate(a: Linear, b: Linear) -> bool:
    return a.x == b.x and a.out.shape == b.out.shape and a.out.size % PANEL == 0 and a.weight != b.weight


def _gated(op: Map, linears: list[tuple[int, Linear]], slots: dict[str, Slot]) -> tuple[Linear, list[int]]:
    first, second = linears[0][1], linears[1][1]
    a, b = slots[first.weight], slots[second.weight]
    joined = Slot(
        f"{a.name}|{b.name}", "panels", (a.shape[0] + b.shape[0], a.shape[1]), a.dtype, a.sources + b.sources, True
    )
    slots[joined.name] = joined
    expr = _accumulate(op.expr, {first.out.name: 0, second.out.name: 1})
    biases = {str(part): linear.bias for part, (_, linear) in enumerate(linears)}

    def add_bias(view: View) -> Expr:
        bias = biases.get(view.name) if view.space == "acc" else None
        return view if bias is None else Apply("add", (view, View("weight", bias, view.shape, (1,))))

    linear = Linear(op.out, first.x, joined.name, None, map_views(expr, add_bias), 2)
    return linear, [at for at, _ in linears]


def _accumulate(expr: Expr, parts: dict[str, int]) -> Expr:
    """The expression with the linears' outputs replaced by their accumulators."""

    def change(view: View) -> View:
        if view.space == "value" and view.name in parts:
            return View("acc", str(parts[view.name]), view.shape, view.strides)
        return view

    return map_views(expr, change)


def _parts(expr: Expr) -> list[Expr]:
    match expr:
        case Apply():
            return [expr, *(p for arg in expr.args for p in _parts(arg))]
        case Cat():
            return [expr, *(p for part in expr.parts for p in _parts(part))]
        case _:
            return [expr]


def merge_linears(program: Program) -> Program:
    """Linears of one input with nothing fused to them become one, its outputs side by side (q, k and v)."""
    groups: dict[tuple[View, bool], list[Linear]] = {}
    for op in straight_ops(program):
        if isinstance(op, Linear) and _plain(op) and op.out.name != program.output:
            groups.setdefault((op.x, op.bias is None), []).append(op)
    slots = dict(program.slots)
    merged: dict[str, tuple[Value, int]] = {}  # old output -> new value, offset
    at_first: dict[str, Linear] = {}
    for members in groups.values():
        weights = [slots[op.weight] for op in members]
        if len(members) < 2 or len({weight.name for weight in weights}) < len(weights):
            continue
        out = Value(members[0].out.name + "m", (sum(op.out.size for op in members),))
        weight = Slot(
            "|".join(w.name for w in weights),
            "panels",
            (out.size, weights[0].shape[1]),
            weights[0].dtype,
            tuple(source for w in weights for source in w.sources),
        )
        slots[weight.name] = weight
        bias = None
        if members[0].bias is not None:
            parts = [slots[op.bias] for op in members if op.bias is not None]
            joined = Slot(
                "|".join(p.name for p in parts), "flat", (out.size,), "fp32", tuple(s for p in parts for s in p.sources)
            )
            slots[joined.name] = joined
            bias = joined.name
        at_first[members[0].out.name] = Linear(out, members[0].x, weight.name, bias)
        offset = 0
        for op in members:
            merged[op.out.name] = (out, offset)
            offset += op.out.size

    def moved(view: View) -> View:
        if view.space == "value" and view.name in merged:
            value, offset = merged[view.name]
            return replace(view, name=value.name, offset=view.offset + offset)
        return view

    body: list[Op] = []
    for op in straight_ops(program):
        if isinstance(op, Linear) and op.out.name in merged:
            if op.out.name in at_first:
                body.append(at_first[op.out.name].map_operands(moved))
            continue
        body.append(op.map_operands(moved))
    return replace(program, body=tuple(body), slots=slots)
