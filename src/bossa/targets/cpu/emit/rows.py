"""A section of row-local ops as C++: one row after the other, each worker a share of the rows."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from bossa.formats.precision import QUANTIZED
from bossa.ir.program import (
    Apply,
    Attention,
    Cat,
    Const,
    Embed,
    Expr,
    Map,
    Reduce,
    Select,
    Shape,
    Value,
    View,
    contiguous_strides,
    expressions,
    tables_of,
    views,
    weights_of,
)
from bossa.targets.cpu.cut import Rows, Store
from bossa.targets.cpu.emit.expressions import Emitter, number
from bossa.targets.cpu.emit.loops import Box, boxes, pieces
from bossa.targets.cpu.emit.names import TYPES, Names, address, lanes_of, store
from bossa.targets.cpu.plan import round_up

Finish = Callable[[str, str, str | None, int], list[str]]
"""(value, where, how many lanes if not all, stride) to the statements that use 16 lanes of an expression."""

_START = {"sum": "0.0f", "mean": "0.0f", "max": "-kInfinity", "min": "kInfinity"}
_COMBINE = {"sum": "{0} + {1}", "mean": "{0} + {1}", "max": "max({0}, {1})", "min": "min({0}, {1})"}
_TREE = {"sum": "sum", "mean": "sum", "max": "maximum", "min": "minimum"}


def write_rows(names: Names, section: Rows) -> list[str]:
    """The body of the section's function."""
    return _RowsWriter(names).write(section)


class _RowsWriter:
    def __init__(self, names: Names) -> None:
        self.names = names
        self.lines: list[str] = []

    def write(self, section: Rows) -> list[str]:
        defined = {op.out.name for op in section.ops if not isinstance(op, Store)}
        weights: list[str] = []
        values: list[str] = []
        tables: list[str] = []
        for op in section.ops:
            if isinstance(op, Store):
                read = [op.attention.k, op.attention.v]
                self.writer(op.attention)
            else:
                weights += [w for w in weights_of(op) if w not in weights]
                tables += [x for x in tables_of(op) if x not in tables and not isinstance(op, Embed)]
                read = [view for expr in expressions(op) for view in views(expr)]
                if isinstance(op, Select):
                    continue
            values += [v.name for v in read if v.space == "value" and v.name not in defined]
        for weight in weights:
            kind = TYPES[self.names.slot(weight).dtype]
            self.lines.append(f"  const {kind}* {self.weight(weight)} = {self.names.weight(weight)};")
        self.lines.append(f"  const Share share = share_of(w, {self.names.rows});")
        self.lines.append("  for (int t = share.begin; t < share.end; t++) {")
        for name in dict.fromkeys(values):
            self.lines.append(f"    const float* {self.names.value(name)} = {self.names.row(name, 't')};")
        for name in tables:
            called = self.names.identifiers.of("table", name)
            self.lines.append(f"    const float* {called} = {self.names.table(name, 't')};")
        for op in section.ops:
            if isinstance(op, Store):
                self.store(op.attention)
                continue
            self.declare(op.out)
            out = self.names.value(op.out.name)
            match op:
                case Embed():
                    self.embed(op, out)
                case Select():
                    source = self.names.row(op.x.name, "p.step->logit_rows[t]")
                    self.lines.append(f"    memcpy({out}, {source}, {op.out.size} * sizeof(float));")
                case Map():
                    self.map(op, out)
                case Reduce():
                    self.reduce(op, out)
        self.lines.append("  }")
        return self.lines

    def declare(self, value: Value) -> None:
        """A row value: its row in the arena, or memory of its own where it lives in this section alone."""
        name = self.names.value(value.name)
        if value.name in self.names.plan.places or value.name == self.names.plan.program.output:
            self.lines.append(f"    float* {name} = {self.names.row(value.name, 't')};")
        else:
            self.lines.append(f"    alignas(64) float {name}[{round_up(max(value.size, 1), 16)}];")

    def embed(self, op: Embed, out: str) -> None:
        slot = self.names.slot(op.weight)
        index = "p.step->tokens[t]" if op.index == "tokens" else f"*({self.names.table(op.index, 't', 'int32_t')})"
        gather = "embed_panels" if slot.layout == "panels" else "embed_rows"
        height = f"{slot.shape[0]}, " if slot.layout == "rows" and slot.dtype in QUANTIZED else ""
        self.lines.append(f"    {gather}({self.weight(op.weight)}, {height}{slot.shape[1]}, {index}, {out});")

    def weight(self, name: str) -> str:
        """What a weight is called in this section."""
        return self.names.identifiers.of("weight", name)

    def writer(self, op: Attention) -> None:
        heads, v_dim = op.v.shape
        shape = self.names.attention_shape(op)
        self.lines.append(f"  KvWriter<Kv, {heads * round_up(v_dim, 16)}> kv_{op.layer}{{{shape}, p.kv}};")

    def store(self, op: Attention) -> None:
        def base(view: View) -> str:
            name = self.names.pointer(view)
            return f"{name} + {view.offset}" if view.offset else name

        self.lines += [
            f"    kv_{op.layer}.put(block_table(p, t), p.step->positions[t], {base(op.k)}, {op.k.strides[0]},",
            f"             {base(op.v)}, {op.v.strides[0]});",
        ]

    def map(self, op: Map, out: str) -> None:
        for box in boxes(op.expr, op.out.shape):
            self.box(box, lambda code, at, n, step: [store(f"{out} + {at}" if at else out, code, n, step)])

    def reduce(self, op: Reduce, out: str) -> None:
        kept = len(op.domain) - op.axes
        for starts, shape, expr in pieces(op.expr, op.domain, kept):
            self.reduce_piece(op, out, starts[:kept], shape[:kept], expr)

    def reduce_piece(self, op: Reduce, out: str, starts: Shape, outer: Shape, expr: Expr) -> None:
        """The results from `starts` on, `outer` of them; `expr` has no joins along those axes."""
        inner = op.domain[len(outer) :]
        indices = [f"a{axis}" for axis in range(len(outer))]
        pad = "    "
        for axis, extent in enumerate(outer):
            self.lines.append(f"{pad}for (int a{axis} = 0; a{axis} < {extent}; a{axis}++) {{")
            pad += "  "
        total = lanes_of(out)
        self.lines.append(f"{pad}f16 {total} = splat({_START[op.kind]});")
        bases: dict[str, str] = {}
        fixed = _fix_outer(expr, indices, bases, self.names.pointer)

        def accumulate(code: str, at: str, n: str | None, step: int) -> list[str]:
            if n is not None:
                code = f"where(lane_mask_n({n}), {code}, splat({_START[op.kind]}))"
            return [f"{total} = {_COMBINE[op.kind].format(total, code)};"]

        for box in boxes(fixed, inner):
            self.box(box, accumulate, pad, bases)
        result = f"{_TREE[op.kind]}({total})"
        if op.kind == "mean":
            result += f" / {number(float(prod(inner)))}"
        strides = contiguous_strides(op.out.shape)
        first = sum(start * stride for start, stride in zip(starts, strides, strict=True))
        at = " + ".join(part for part in (str(first) if first else "", address(indices, strides)) if part)
        self.lines.append(f"{pad}{out}[{at or '0'}] = {result};")
        for _ in outer:
            pad = pad[:-2]
            self.lines.append(f"{pad}}}")

    def box(self, box: Box, finish: Finish, pad: str = "    ", bases: dict[str, str] | None = None) -> None:
        """Loops over a box; `finish` turns the expression's text into the statements that use it."""
        *around, extent = box.shape or (1,)
        *strides_around, step = box.strides or (1,)
        indices = [f"j{axis}" for axis in range(len(around))]
        scalar = not box.shape

        def load(view: View) -> str:
            *view_around, inner = view.strides or (0,)
            offsets = [str(view.offset) if view.offset else "", address(indices, view_around)]
            start = bases[view.name] if bases else self.names.pointer(view)
            base = " + ".join([start, *(o for o in offsets if o)])
            if inner == 0 or extent == 1:
                return f"splat(*({base}))"
            if inner == 1:
                return f"load({base} + j)" if extent % 16 == 0 else f"load_n({base} + j, {extent} - j)"
            return f"load_strided({base} + j * {inner}, {inner}, {extent} - j)"

        emitter = Emitter(load, lambda view: bool(view.strides) and view.strides[-1] != 0 and extent > 1)
        code = emitter.emit(box.expr)
        at = " + ".join(
            part for part in (str(box.offset) if box.offset else "", address(indices, strides_around)) if part
        )
        if extent == 1 or scalar:
            body = finish(code, at, "1", 1)
            loop: list[str] = [*emitter.inside, *body]
        else:
            n = None if extent % 16 == 0 else f"{extent} - j"
            place = " + ".join(part for part in (at, "j" if step == 1 else f"j * {step}") if part)
            body = finish(code, place, n, step)
            loop = [
                f"for (int j = 0; j < {extent}; j += kLanes) {{",
                *(f"  {line}" for line in (*emitter.inside, *body)),
                "}",
            ]
        for axis, count in enumerate(around):
            self.lines.append(f"{pad}for (int j{axis} = 0; j{axis} < {count}; j{axis}++) {{")
            pad += "  "
        braces = bool(emitter.before) and not around
        if braces:
            self.lines.append(f"{pad}{{")
            pad += "  "
        self.lines += [f"{pad}{line}" for line in (*emitter.before, *loop)]
        if braces:
            pad = pad[:-2]
            self.lines.append(f"{pad}}}")
        for _ in around:
            pad = pad[:-2]
            self.lines.append(f"{pad}}}")


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
