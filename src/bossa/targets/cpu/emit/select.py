"""``select`` as C++: the rows whose logits are wanted, copied side by side."""

from __future__ import annotations

from bossa.ir.values import View
from bossa.ops import Select
from bossa.targets.cpu.emit.emitter import Emitter
from bossa.targets.cpu.emit.rows import RowWriter


class SelectEmitter(Emitter[Select]):
    """A copy from the row of the step."""

    def row_views(self, op: Select) -> list[View]:
        return []  # it reads another row than the one at hand

    def write_row(self, writer: RowWriter, op: Select, out: str) -> None:
        source = writer.names.row(op.x.name, "p.step->logit_rows[t]")
        writer.lines.append(f"    memcpy({out}, {source}, {op.out.size} * sizeof(float));")
