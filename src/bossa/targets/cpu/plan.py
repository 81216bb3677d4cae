"""A program's plan: its sections, memory of a step, layout of the state of sequences, and constants."""

from __future__ import annotations

from collections.abc import Iterable

from bossa.formats.geometry import round_up
from bossa.formats.precision import KvPrecision
from bossa.formats.registry import FORMATS
from bossa.ir.op import StatefulOp
from bossa.ir.program import Loop, Op, Program, row_ops
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
    sizes: dict[int, tuple[str, int]] = {}

    def visit(ops: Iterable[Op], shifts: tuple[int, ...] = (0,)) -> None:
        for op in ops:
            if isinstance(op, Loop):
                visit(op.body, tuple(i * op.layers for i in range(op.count)))
            elif isinstance(op, StatefulOp):
                spec = op.state()
                paged = spec.kind == "paged"
                size = emitter_of(op).state_bytes(op, kv_precision) if paged else spec.bytes + DRAFTS * spec.draft_bytes
                sizes.update((op.layer + shift, (spec.kind, size)) for shift in shifts)

    visit(program.body)
    offsets = []
    used = {"paged": 0, "recurrent": 0}
    for layer in sorted(sizes):
        kind, size = sizes[layer]
        offsets.append(used[kind])
        used[kind] += size
    return tuple(offsets), used["paged"]
