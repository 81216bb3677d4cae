"""A program's plan: its sections, memory of a step, layout of the state of sequences, and constants."""

from __future__ import annotations

from bossa.formats.geometry import round_up
from bossa.formats.precision import KvPrecision
from bossa.formats.registry import FORMATS
from bossa.ir.program import Program, row_ops, stateful_ops
from bossa.targets.cpu.arena import place_values
from bossa.targets.cpu.cut import cut
from bossa.targets.cpu.emit.kinds import emitter_of
from bossa.targets.cpu.layout import DRAFTS, Plan


def make_plan(program: Program, kv_precision: KvPrecision = "fp32") -> Plan:
    """Cut a program into sections and place its values."""
    sections = cut(program.body)
    places, floats = place_values(program, sections)
    state_offsets, page_bytes = _state_layout(program, kv_precision)
    constants: dict[str, int] = {}
    position = 0
    for name, table in program.tables.items():
        constants[name] = position
        position += round_up(table.size, 16)
    quantized = _quantized(program)
    return Plan(program, sections, places, floats, kv_precision, state_offsets, page_bytes, constants, quantized)


def pack_constants(program: Program) -> bytes:
    """The tables as the native program reads them: one after the other, each at 64 bytes; those
    that are read by columns are transposed."""
    columns = {name for op in row_ops(program) for name in op.column_tables()}
    chunks: list[bytes] = []
    for name, table in program.tables.items():
        data = (table.T if name in columns else table).astype(table.dtype, order="C").tobytes()
        chunks.append(data + bytes(round_up(len(data), 64) - len(data)))
    return b"".join(chunks)


def _quantized(program: Program) -> tuple[tuple[str, int], ...]:
    """The quantized linears' formats and K, without repeats."""
    kinds = {
        (slot.dtype, slot.shape[1])
        for slot in program.slots.values()
        if FORMATS[slot.dtype].quantized and slot.layout == "panels"
    }
    return tuple(sorted(kinds))


def _state_layout(program: Program, kv_precision: KvPrecision) -> tuple[tuple[int, ...], int]:
    """Where the state of each layer starts, in the order of their numbers, in a page or a slot; and a page's bytes."""
    offsets: list[int] = []
    used = {"paged": 0, "recurrent": 0}
    for op in sorted(stateful_ops(program), key=lambda op: op.layer):
        spec = op.state()
        offsets.append(used[spec.kind])
        if spec.kind == "paged":
            used["paged"] += emitter_of(op).state_bytes(op, kv_precision)
        else:
            used["recurrent"] += spec.bytes + DRAFTS * spec.draft_bytes
    return tuple(offsets), used["paged"]
