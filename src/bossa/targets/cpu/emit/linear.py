"""``linear`` as C++: the product, its outputs shared among the workers, and its epilogue on each finished piece."""

from __future__ import annotations

from math import prod

from bossa.formats.geometry import PANEL
from bossa.formats.registry import FORMATS
from bossa.ir.values import Apply, Expr, View, map_views, views
from bossa.ops import Linear
from bossa.targets.cpu.emit.emitter import Emitter
from bossa.targets.cpu.emit.expressions import ExprWriter
from bossa.targets.cpu.emit.names import Names, store


class LinearEmitter(Emitter[Linear]):
    """A call of `linear.h` or `quantized.h`."""

    single = True
    row_local = True

    def header(self, op: Linear) -> str | None:
        return "low_rank.h" if op.adapted else None

    def overwrites(self, op: Linear) -> Expr | None:
        return op.epilogue

    def reads_beside(self, op: Linear) -> frozenset[str]:
        return frozenset({op.x.name})

    def write_section(self, names: Names, op: Linear) -> list[str]:
        lines: list[str] = []
        slot = names.slot(op.weight)
        n, k = slot.shape
        place = names.plan.places[op.x.name]
        expr = _epilogue(op)
        weights = {v.name for v in views(expr) if v.space == "weight"}
        values = list(dict.fromkeys(v.name for v in views(expr) if v.space == "value"))
        tables = list(dict.fromkeys(v.name for v in views(expr) if v.space == "table"))
        head = names.plan.finds_best and op.out.name == names.plan.program.output
        if head:
            lines += [
                "  Best* bests = p.step->best ? p.bests + (size_t)w.id * (size_t)p.max_rows : nullptr;",
                f"  for (int t = 0; bests && t < {names.rows}; t++) bests[t].clear();",
            ]
        for weight in sorted(weights):
            lines.append(f"  const float* {names.identifiers.of('weight', weight)} = {names.weight(weight)};")
        lead = op.x.shape[:-1]
        groups = prod(lead)
        pad = "  "
        group_offset = ""
        if groups > 1:
            lines.append(f"  for (int g = 0; g < {groups}; g++) {{")
            pad, group_offset = "    ", f" + g * {k}"
        offset = f" + {op.x.offset}" if op.x.offset else ""
        width = n // op.parts
        out_offset = f" + g * {width}" if groups > 1 else ""
        lines.append(f"{pad}const float* x = row(p, {place.offset}, {place.stride}, 0){offset}{group_offset};")
        if op.adapted:
            chosen = "p.step->logit_rows" if names.selected else "nullptr"
            lines += [
                f"{pad}const LowRank adapter(w, p, {names.slot_number(op.weight)}, Sizes::slots, {chosen},",
                f"{pad}                      {names.rows}, x, {place.stride}, {k});",
            ]
        operands = f"(w, {names.rows}, x, {place.stride}, {names.weight(op.weight)}, {n}, {k}, {op.parts},"
        if FORMATS[slot.dtype].quantized:
            lines.append(f"{pad}quantized_linear{operands} p.quantized, p.max_rows,")
        else:
            lines.append(f"{pad}linear{operands}")
        lines.append(f"{pad}       [&](int t, int col, int n, const float* sums) {{")
        inner = pad + "  "
        if op.adapted:
            lines.append(f"{inner}alignas(64) float adapted[detail::kBlockPanels * kLanes];")
            lines.append(f"{inner}sums = adapter.add(t, col, n, sums, adapted);")
        if op.parts > 1:
            lines.append(f"{inner}col /= {op.parts};")
            lines.append(f"{inner}n /= {op.parts};")
        for name in values:
            lines.append(f"{inner}const float* {names.value(name)} = {names.row(name, 't')};")
        for name in tables:
            lines.append(f"{inner}const float* {names.identifiers.of('table', name)} = {names.table(name, 't')};")
        if head:
            lines.append(f"{inner}alignas(64) float piece[detail::kBlockPanels * kLanes];")
            lines.append(f"{inner}float* out = bests ? piece : {names.row(op.out.name, 't')} + col;")
        else:
            lines.append(f"{inner}float* out = {names.row(op.out.name, 't')}{out_offset} + col;")
        clipped = width % 16 != 0

        def load(view: View) -> str:
            if view.space == "acc":
                if op.parts == 1:
                    return "load(sums + j)"
                return f"load(sums + {op.parts} * j + {int(view.name) * PANEL})"
            base = names.pointer(view) + (f" + {view.offset}" if view.offset else "")
            if not view.strides or view.strides[-1] == 0:
                return f"splat(*({base}))"
            return f"load_n({base} + col + j, {width} - col - j)" if clipped else f"load({base} + col + j)"

        writer = ExprWriter(load, lambda v: v.space == "acc" or (bool(v.strides) and v.strides[-1] != 0))
        code = writer.emit(expr)
        lines += [f"{inner}{line}" for line in writer.before]
        lines.append(f"{inner}for (int j = 0; j < n; j += kLanes) {{")
        lines += [f"{inner}  {line}" for line in writer.inside]
        lines.append(f"{inner}  {store('out + j', code, f'{width} - col - j' if clipped else None)}")
        lines.append(f"{inner}}}")
        if head:
            lines.append(f"{inner}if (bests) bests[t].see(piece, col, n < {width} - col ? n : {width} - col);")
        lines.append(f"{pad}}});")
        if groups > 1:
            lines += ["    w.barrier();", "  }"]
        return lines


def _epilogue(op: Linear) -> Expr:
    """A linear's epilogue over one axis, its bias included."""
    width = op.out.shape[-1] if op.out.shape else 1
    expr: Expr = op.epilogue if op.epilogue is not None else View("acc", "0", (width,), (1,))
    if op.bias is None:
        return expr
    biased = Apply("add", (View("acc", "0", (width,), (1,)), View("weight", op.bias, (width,), (1,))))
    return map_views(expr, lambda view: biased if view.space == "acc" else view)
