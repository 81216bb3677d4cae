"""The body of a section of row-local ops: one row after the other, each worker a share of the rows."""

from __future__ import annotations

from collections.abc import Callable

from bossa.formats.geometry import round_up
from bossa.ir.values import Value, View
from bossa.targets.cpu.emit.expressions import ExprWriter
from bossa.targets.cpu.emit.loops import Box
from bossa.targets.cpu.emit.names import Names, address

Finish = Callable[[str, str, str | None, int], list[str]]
"""(value, where, how many lanes if not all, stride) to the statements that use 16 lanes of an expression."""


class RowWriter:
    """Writes statements about row ``t``.

    Attributes:
        names: what things are called.
        lines: what is written so far.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.lines: list[str] = []

    def declare(self, value: Value) -> None:
        """A row value: its row in the arena, or memory of its own where it lives in this section alone."""
        name = self.names.value(value.name)
        if value.name in self.names.plan.places or value.name == self.names.plan.program.output:
            self.lines.append(f"    float* {name} = {self.names.row(value.name, 't')};")
        else:
            self.lines.append(f"    alignas(64) float {name}[{round_up(max(value.size, 1), 16)}];")

    def weight(self, name: str) -> str:
        """What a weight is called in this section."""
        return self.names.identifiers.of("weight", name)

    def base(self, view: View) -> str:
        """Where a view begins in its row."""
        name = self.names.pointer(view)
        return f"{name} + {view.offset}" if view.offset else name

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

        emitter = ExprWriter(load, lambda view: bool(view.strides) and view.strides[-1] != 0 and extent > 1)
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
