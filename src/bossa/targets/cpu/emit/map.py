"""``map`` as C++: an expression, box by box."""

from __future__ import annotations

from bossa.ir.values import Expr
from bossa.ops import Map
from bossa.targets.cpu.emit.emitter import Emitter
from bossa.targets.cpu.emit.loops import boxes
from bossa.targets.cpu.emit.names import store
from bossa.targets.cpu.emit.rows import RowWriter


class MapEmitter(Emitter[Map]):
    """A loop for each box of the domain in which every joined part is one part."""

    def overwrites(self, op: Map) -> Expr | None:
        return op.expr

    def write_row(self, writer: RowWriter, op: Map, out: str) -> None:
        for box in boxes(op.expr, op.out.shape):
            writer.box(box, lambda code, at, n, step: [store(f"{out} + {at}" if at else out, code, n, step)])
