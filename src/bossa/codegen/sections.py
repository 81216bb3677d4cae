"""One section as one C++ function."""

from __future__ import annotations

import re
from math import prod

from bossa.codegen.expressions import Emitter, number
from bossa.codegen.loops import Box, boxes
from bossa.codegen.plan import Attend, Matmul, Plan, Rows, Store, round_up
from bossa.program.ir import (
    Apply,
    Attention,
    Cat,
    Const,
    Embed,
    Expr,
    Linear,
    Loop,
    Map,
    Reduce,
    Select,
    Value,
    View,
    expressions,
    tables_of,
    views,
    weights_of,
    whole,
)
from bossa.program.text import show
from bossa.weights.slot import PANEL

_TYPES = {"fp32": "float", "bf16": "bf16"}
_START = {"sum": "0.0f", "mean": "0.0f", "max": "-kInfinity", "min": "kInfinity"}


def identifier(name: str) -> str:
    """A C++ name for a value or a weight."""
    return "".join(c if c.isalnum() else "_" for c in name)


class SectionWriter:
    """Writes the functions of a plan's sections."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.slot_index = {name: i for i, name in enumerate(plan.program.slots)}
        self.loop: Loop | None = None
        self.selected = False
        self.lines: list[str] = []
        self.local: dict[str, Value] = {}

    # -- entry -------------------------------------------------------------------------------------------------

    def section(self, section: Rows | Matmul | Attend, loop: Loop | None) -> str:
        """The function of a section; in a loop it takes the iteration's slots and its number."""
        self.loop = loop
        self.selected = getattr(section, "selected", False)
        self.lines = []
        self.local = {}
        ops = section.ops if isinstance(section, Rows) else (section.op,)
        comments = [f"// {show(op.attention if isinstance(op, Store) else op)}" for op in ops]
        comments = [
            f"// store {op.attention.k.name}, {op.attention.v.name} in the KV pages" if isinstance(op, Store) else text
            for op, text in zip(ops, comments, strict=True)
        ]
        extra = ", const int* slots, int i" if loop is not None else ""
        match section:
            case Rows():
                self.rows(section)
            case Matmul():
                self.matmul(section.op)
            case Attend():
                self.attend(section.op)
        uses = "\n".join(self.lines)
        ignored = "" if loop is None else "".join(
            f"  (void){name};\n" for name in ("slots", "i") if not _mentions(uses, name)
        )
        head = f"void {section.name}(Program& p, Worker& w{extra}) {{"
        return "\n".join([*comments, head, *([ignored.rstrip("\n")] if ignored else []), *self.lines, "}\n"])

    def copies(self, loop: Loop, *, first: bool) -> list[str]:
        """What starts a loop (`first`) or ends an iteration: carried values that are not in place yet are copied."""
        lines: list[str] = []
        for carried in loop.carried:
            source = self.plan.places[carried.init if first else carried.step]
            target = self.plan.places[carried.inner.name]
            if source != target:
                lines += [
                    f"for (int t = share_of(w, p.step->rows).begin; t < share_of(w, p.step->rows).end; t++) {{",
                    f"  memcpy(row(p, {target.offset}, {target.stride}, t), row(p, {source.offset}, {source.stride}, t),",
                    f"         {carried.inner.size} * sizeof(float));",
                    "}",
                    "w.barrier();",
                ]
        return lines

    # -- names -------------------------------------------------------------------------------------------------

    def slot(self, name: str, kind: str) -> str:
        """The packed weight `name`, as a pointer."""
        if self.loop is not None:
            return f"slot<{kind}>(p, slots[{weights_of(self.loop).index(name)}])"
        return f"slot<{kind}>(p, {self.slot_index[name]})"

    def slot_of(self, name: str):  # type: ignore[no-untyped-def]
        """The slot behind a weight's name; in a loop, the first iteration's."""
        if self.loop is not None:
            name = dict(self.loop.weights).get(name, (name,))[0]
        return self.plan.program.slots[name]

    def row_of(self, name: str, t: str) -> str:
        """The row of a value outside its section."""
        if name == self.plan.program.output:
            return f"p.step->logits + (size_t){t} * kVocabulary"
        place = self.plan.places[name]
        return f"row(p, {place.offset}, {place.stride}, {t})"

    def position(self, t: str) -> str:
        return f"p.step->positions[p.step->logit_rows[{t}]]" if self.selected else f"p.step->positions[{t}]"

    def table(self, name: str, t: str, kind: str = "float") -> str:
        """A position table's row for packed row `t`."""
        table = self.plan.program.tables[name]
        base = f"p.constants + {self.plan.constants[name]}"
        if kind != "float":
            base = f"(const {kind}*)({base})"
        if len(table) == 1:
            return base
        return f"{base} + (size_t){self.position(t)} * {prod(table.shape[1:])}"

    # -- rows --------------------------------------------------------------------------------------------------

    def rows(self, section: Rows) -> None:
        defined = {op.out.name for op in section.ops if not isinstance(op, Store)}
        count = "p.step->logit_count" if section.selected else "p.step->rows"
        weights: list[str] = []
        values: list[str] = []
        tables: list[str] = []
        for op in section.ops:
            if isinstance(op, Store):
                read = [op.attention.k, op.attention.v]
            else:
                weights += [w for w in weights_of(op) if w not in weights]
                tables += [x for x in tables_of(op) if x not in tables and not isinstance(op, Embed)]
                read = [view for expr in expressions(op) for view in views(expr)]
                if isinstance(op, Select):
                    continue
            values += [v.name for v in read if v.space == "value" and v.name not in defined]
        for weight in weights:
            kind = _TYPES[self.slot_of(weight).dtype]
            self.lines.append(f"  const {kind}* w_{identifier(weight)} = {self.slot(weight, kind)};")
        self.lines.append(f"  const Share share = share_of(w, {count});")
        self.lines.append("  for (int t = share.begin; t < share.end; t++) {")
        for name in dict.fromkeys(values):
            self.lines.append(f"    const float* {identifier(name)} = {self.row_of(name, 't')};")
        for name in tables:
            self.lines.append(f"    const float* {identifier(name)} = {self.table(name, 't')};")
        for op in section.ops:
            if isinstance(op, Store):
                self.store(op.attention)
                continue
            self.declare(op.out)
            out = identifier(op.out.name)
            match op:
                case Embed():
                    self.embed(op, out)
                case Select():
                    source = self.row_of(op.x.name, "p.step->logit_rows[t]")
                    self.lines.append(f"    memcpy({out}, {source}, {op.out.size} * sizeof(float));")
                case Map():
                    self.map(op, out)
                case Reduce():
                    self.reduce(op, out)
        self.lines.append("  }")

    def declare(self, value: Value) -> None:
        """A row value: its row in the arena, or memory of its own where it lives in this section alone."""
        name = identifier(value.name)
        if value.name in self.plan.places or value.name == self.plan.program.output:
            self.lines.append(f"    float* {name} = {self.row_of(value.name, 't')};")
        else:
            self.local[value.name] = value
            self.lines.append(f"    alignas(64) float {name}[{round_up(max(value.size, 1), 16)}];")

    def embed(self, op: Embed, out: str) -> None:
        slot = self.slot_of(op.weight)
        index = "p.step->tokens[t]" if op.index == "tokens" else f"*({self.table(op.index, 't', 'int32_t')})"
        gather = "embed_panels" if slot.layout == "panels" else "embed_rows"
        self.lines.append(f"    {gather}(w_{identifier(op.weight)}, {slot.shape[1]}, {index}, {out});")

    def store(self, op: Attention) -> None:
        def base(view: View) -> str:
            name = identifier(view.name)
            return f"{name} + {view.offset}" if view.offset else name

        self.lines += [
            f"    store_kv({self.shape(op)}, p.kv, block_table(p, t), p.step->positions[t],",
            f"             {base(op.k)}, {op.k.strides[0]}, {base(op.v)}, {op.v.strides[0]});",
        ]

    def map(self, op: Map, out: str) -> None:
        for box in boxes(op.expr, op.out.shape):
            self.box(box, lambda code, at, n, step: [_store(f"{out} + {at}" if at else out, step, code, n)])

    def reduce(self, op: Reduce, out: str) -> None:
        outer = op.domain[: len(op.domain) - op.axes]
        inner = op.domain[len(op.domain) - op.axes :]
        indices = [f"a{axis}" for axis in range(len(outer))]
        pad = "    "
        for axis, extent in enumerate(outer):
            self.lines.append(f"{pad}for (int a{axis} = 0; a{axis} < {extent}; a{axis}++) {{")
            pad += "  "
        total = f"{out}_lanes"
        self.lines.append(f"{pad}f16 {total} = splat({_START[op.kind]});")
        combine = {"sum": "{0} + {1}", "mean": "{0} + {1}", "max": "max({0}, {1})", "min": "min({0}, {1})"}[op.kind]
        bases: dict[str, str] = {}
        fixed = _fix_outer(op.expr, indices, bases)

        def accumulate(code: str, at: str, n: str | None, step: int) -> list[str]:
            if n is not None:
                code = f"where(lane_mask_n({n}), {code}, splat({_START[op.kind]}))"
            return [f"{total} = {combine.format(total, code)};"]

        for box in boxes(fixed, inner):
            self.box(box, accumulate, pad, bases)
        whole_tree = {"sum": "sum", "mean": "sum", "max": "maximum", "min": "minimum"}[op.kind]
        result = f"{whole_tree}({total})"
        if op.kind == "mean":
            result += f" / {number(float(prod(inner)))}"
        at = _address(indices, _strides(outer))
        self.lines.append(f"{pad}{out}[{at or '0'}] = {result};")
        for _ in outer:
            pad = pad[:-2]
            self.lines.append(f"{pad}}}")

    def box(self, box: Box, finish, pad: str = "    ", bases=None) -> None:  # type: ignore[no-untyped-def]
        """Loops over a box; `finish` turns the expression's text into the statements that use it."""
        *around, extent = box.shape or (1,)
        *strides_around, step = box.strides or (1,)
        indices = [f"j{axis}" for axis in range(len(around))]
        scalar = not box.shape

        def load(view: View) -> str:
            *view_around, inner = view.strides or (0,)
            offsets = [str(view.offset) if view.offset else "", _address(indices, view_around)]
            start = bases[view.name] if bases else _pointer(view)
            base = " + ".join([start, *(o for o in offsets if o)])
            if inner == 0 or extent == 1:
                return f"splat(*({base}))"
            if inner == 1:
                return f"load({base} + j)" if extent % 16 == 0 else f"load_n({base} + j, {extent} - j)"
            return f"load_strided({base} + j * {inner}, {inner}, {extent} - j)"

        emitter = Emitter(load, lambda view: bool(view.strides) and view.strides[-1] != 0 and extent > 1)
        code = emitter.emit(box.expr)
        at = " + ".join(
            part for part in (str(box.offset) if box.offset else "", _address(indices, strides_around)) if part
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

    # -- linear ------------------------------------------------------------------------------------------------

    def matmul(self, op: Linear) -> None:
        slot = self.slot_of(op.weight)
        kind = _TYPES[slot.dtype]
        n, k = slot.shape
        rows = "p.step->logit_count" if self.selected else "p.step->rows"
        place = self.plan.places[op.x.name]
        expr = _epilogue(op)
        weights = {v.name for v in views(expr) if v.space == "weight"}
        values = list(dict.fromkeys(v.name for v in views(expr) if v.space == "value"))
        tables = list(dict.fromkeys(v.name for v in views(expr) if v.space == "table"))
        for weight in sorted(weights):
            self.lines.append(f"  const float* w_{identifier(weight)} = {self.slot(weight, 'float')};")
        lead = op.x.shape[:-1]
        groups = prod(lead)
        pad = "  "
        group_offset = ""
        if groups > 1:
            self.lines.append(f"  for (int g = 0; g < {groups}; g++) {{")
            pad, group_offset = "    ", f" + g * {k}"
        offset = f" + {op.x.offset}" if op.x.offset else ""
        width = n // op.parts
        out_offset = f" + g * {width}" if groups > 1 else ""
        self.lines += [
            f"{pad}const float* x = row(p, {place.offset}, {place.stride}, 0){offset}{group_offset};",
            f"{pad}linear(w, {rows}, x, {place.stride}, {self.slot(op.weight, kind)}, {n}, {k}, {op.parts},",
            f"{pad}       [&](int t, int col, int n, const float* sums) {{",
        ]
        inner = pad + "  "
        if op.parts > 1:
            self.lines.append(f"{inner}col /= {op.parts};")
            self.lines.append(f"{inner}n /= {op.parts};")
        for name in values:
            self.lines.append(f"{inner}const float* {identifier(name)} = {self.row_of(name, 't')};")
        for name in tables:
            self.lines.append(f"{inner}const float* {identifier(name)} = {self.table(name, 't')};")
        self.lines.append(f"{inner}float* out = {self.row_of(op.out.name, 't')}{out_offset};")
        clipped = width % 16 != 0

        def load(view: View) -> str:
            if view.space == "acc":
                if op.parts == 1:
                    return "load(sums + j)"
                return f"load(sums + {op.parts} * j + {int(view.name) * PANEL})"
            base = ("w_" if view.space == "weight" else "") + identifier(view.name)
            base += f" + {view.offset}" if view.offset else ""
            if not view.strides or view.strides[-1] == 0:
                return f"splat(*({base}))"
            return f"load_n({base} + col + j, {width} - col - j)" if clipped else f"load({base} + col + j)"

        emitter = Emitter(load, lambda v: v.space == "acc" or (bool(v.strides) and v.strides[-1] != 0))
        code = emitter.emit(expr)
        self.lines += [f"{inner}{line}" for line in emitter.before]
        self.lines.append(f"{inner}for (int j = 0; j < n; j += kLanes) {{")
        self.lines += [f"{inner}  {line}" for line in emitter.inside]
        self.lines.append(f"{inner}  {_store('out + col + j', 1, code, f'{width} - col - j' if clipped else None)}")
        self.lines += [f"{inner}}}", f"{pad}}});"]
        if groups > 1:
            self.lines += ["    w.barrier();", "  }"]

    # -- attention ---------------------------------------------------------------------------------------------

    def shape(self, op: Attention) -> str:
        """The AttentionShape of an op, as an expression."""
        offsets = self.plan.kv_offsets
        offset = str(offsets[op.layer])
        if self.loop is not None:
            step = offsets[op.layer + self.loop.layers] - offsets[op.layer]
            offset = f"{offset} + (size_t)i * {step}"
        bias, bias_stride = "nullptr", 0
        if op.bias is not None:
            bias, bias_stride = f"p.constants + {self.plan.constants[op.bias]}", self.plan.program.max_seq_length
        sinks = "nullptr" if op.sinks is None else self.slot(op.sinks, "float")
        return (
            f"AttentionShape{{{op.q.shape[0]}, {op.k.shape[0]}, {op.k.shape[1]}, {op.v.shape[1]}, {number(op.scale)},"
            f" {op.window}, {number(op.softcap)}, {bias}, {bias_stride}, {sinks}, kPageFloats, {offset}}}"
        )

    def attend(self, op: Attention) -> None:
        q, out = self.plan.places[op.q.name], self.plan.places[op.out.name]
        offset = f" + {op.q.offset}" if op.q.offset else ""
        self.lines += [
            f"  attention(w, {self.shape(op)}, p.kv, batch_of(*p.step),",
            f"            row(p, {q.offset}, {q.stride}, 0){offset}, {q.stride}, {op.q.strides[0]},",
            f"            row(p, {out.offset}, {out.stride}, 0), {out.stride});",
        ]


def _epilogue(op: Linear) -> Expr:
    """A linear's epilogue over one axis, its bias included."""
    width = op.out.shape[-1] if op.out.shape else 1
    expr: Expr = op.epilogue if op.epilogue is not None else View("acc", "0", (width,), (1,))
    if op.bias is None:
        return expr
    biased = Apply("add", (View("acc", "0", (width,), (1,)), View("weight", op.bias, (width,), (1,))))

    def change(e: Expr) -> Expr:
        if isinstance(e, View) and e.space == "acc":
            return biased
        if isinstance(e, Apply):
            return Apply(e.function, tuple(change(arg) for arg in e.args))
        return e

    return change(expr)


def _store(place: str, step: int, code: str, n: str | None) -> str:
    if n == "1":
        return f"store_n({place}, {code}, 1);"
    if step != 1:
        return f"store_strided({place}, {step}, {code}, {n or 16});"
    return f"store({place}, {code});" if n is None else f"store_n({place}, {code}, {n});"


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return whole(Value("", shape)).strides


def _address(indices: list[str], strides: tuple[int, ...] | list[int]) -> str:
    return " + ".join(
        index if stride == 1 else f"{index} * {stride}"
        for index, stride in zip(indices, strides, strict=True)
        if stride
    )


def _pointer(view: View) -> str:
    return ("w_" if view.space == "weight" else "") + identifier(view.name)


def _fix_outer(expr: Expr, indices: list[str], bases: dict[str, str]) -> Expr:
    """The expression over the inner axes alone; `bases` gets, by new names, the pointers that the outer ones move."""
    count = len(indices)
    match expr:
        case View():
            moved = _address(indices, expr.strides[:count])
            base = " + ".join(part for part in (_pointer(expr), moved) if part)
            name = str(len(bases))
            bases[name] = base
            return View(expr.space, name, expr.shape[count:], expr.strides[count:], expr.offset)
        case Apply():
            return Apply(expr.function, tuple(_fix_outer(arg, indices, bases) for arg in expr.args))
        case Cat():
            return Cat(expr.axis - count, expr.sizes, tuple(_fix_outer(part, indices, bases) for part in expr.parts))
        case Const():
            return expr


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None
