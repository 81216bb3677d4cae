"""A section of row-local ops as C++."""

from __future__ import annotations

from bossa.formats.registry import FORMATS
from bossa.ir.program import weights_of
from bossa.targets.cpu.emit.kinds import emitter_of
from bossa.targets.cpu.emit.names import Names
from bossa.targets.cpu.emit.rows import RowWriter
from bossa.targets.cpu.sections import Rows, Store


def write_rows(names: Names, section: Rows) -> list[str]:
    """The body of the section's function."""
    writer = RowWriter(names)
    defined = {op.out.name for op in section.ops if not isinstance(op, Store)}
    weights: list[str] = []
    values: list[str] = []
    tables: list[str] = []
    for op in section.ops:
        if isinstance(op, Store):
            emitter_of(op.op).begin_store(writer, op.op)
            read = list(op.views)
        else:
            emitter = emitter_of(op)
            weights += [weight for weight in weights_of(op) if weight not in weights]
            tables += [table for table in emitter.row_tables(op) if table not in tables]
            read = emitter.row_views(op)
        values += [view.name for view in read if view.space == "value" and view.name not in defined]
    for weight in weights:
        kind = FORMATS[names.slot(weight).dtype].cpp
        writer.lines.append(f"  const {kind}* {writer.weight(weight)} = {names.weight(weight)};")
    writer.lines.append(f"  const Share share = share_of(w, {names.rows});")
    writer.lines.append("  for (int t = share.begin; t < share.end; t++) {")
    for name in dict.fromkeys(values):
        writer.lines.append(f"    const float* {names.value(name)} = {names.row(name, 't')};")
    for name in tables:
        called = names.identifiers.of("table", name)
        writer.lines.append(f"    const float* {called} = {names.table(name, 't')};")
    for op in section.ops:
        if isinstance(op, Store):
            emitter_of(op.op).write_store(writer, op.op)
        else:
            writer.declare(op.out)
            emitter_of(op).write_row(writer, op, names.value(op.out.name))
    writer.lines.append("  }")
    return writer.lines
