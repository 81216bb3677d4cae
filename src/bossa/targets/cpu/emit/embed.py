"""``embed`` as C++: a row of a table or of panels."""

from __future__ import annotations

from bossa.formats.registry import FORMATS
from bossa.ops import Embed
from bossa.targets.cpu.emit.emitter import Emitter
from bossa.targets.cpu.emit.rows import RowWriter


class EmbedEmitter(Emitter[Embed]):
    """A call of `rows.h`."""

    def row_tables(self, op: Embed) -> tuple[str, ...]:
        return ()  # its index is read where it is used

    def write_row(self, writer: RowWriter, op: Embed, out: str) -> None:
        names = writer.names
        slot = names.slot(op.weight)
        index = "p.step->tokens[t]" if op.index == "tokens" else f"*({names.table(op.index, 't', 'int32_t')})"
        gather = "embed_panels" if slot.layout == "panels" else "embed_rows"
        height = f"{slot.shape[0]}, " if slot.layout == "rows" and FORMATS[slot.dtype].quantized else ""
        writer.lines.append(f"    {gather}({writer.weight(op.weight)}, {height}{slot.shape[1]}, {index}, {out});")
