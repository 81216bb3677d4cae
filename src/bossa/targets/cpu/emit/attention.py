"""``attention`` as C++: keys and values go to the pages row by row, then workers share tiles of rows and heads."""

from __future__ import annotations

from bossa.formats.geometry import PANEL, round_up
from bossa.formats.precision import KvPrecision
from bossa.ir.values import View
from bossa.ops import Attention
from bossa.targets.cpu.emit.emitter import Emitter
from bossa.targets.cpu.emit.expressions import number
from bossa.targets.cpu.emit.names import Names
from bossa.targets.cpu.emit.rows import RowWriter
from bossa.targets.cpu.layout import PAGE

KV_BYTES: dict[KvPrecision, int] = {"fp32": 4, "bf16": 2, "int8": 1}
"""Bytes of a stored key or value, by precision."""
KV_TYPES = {"fp32": "float", "bf16": "bf16", "int8": "int8_t"}


def head_bytes(dim: int, v_dim: int, kv_precision: KvPrecision) -> int:
    """What a head takes in a page: `HeadLayout` of the kernels."""
    element = KV_BYTES[kv_precision]
    scales = 2 * 4 * PAGE if kv_precision == "int8" else 0
    if kv_precision == "int8":
        dim = round_up(dim, 4)
    return round_up(element * PAGE * dim, 64) + element * PAGE * round_up(v_dim, PANEL) + scales


class AttentionEmitter(Emitter[Attention]):
    """Calls of `kv.h` and `attention.h`."""

    single = True

    def stored(self, op: Attention) -> tuple[View, ...]:
        return (op.k, op.v)

    def state_bytes(self, op: Attention, kv_precision: KvPrecision) -> int:
        return op.k.shape[0] * head_bytes(op.k.shape[1], op.v.shape[1], kv_precision)

    def begin_store(self, writer: RowWriter, op: Attention) -> None:
        heads, v_dim = op.v.shape
        shape = _shape(writer.names, op)
        writer.lines.append(f"  KvWriter<Kv, {heads * round_up(v_dim, 16)}> kv_{op.layer}{{{shape}, p.kv}};")

    def write_store(self, writer: RowWriter, op: Attention) -> None:
        writer.lines += [
            f"    kv_{op.layer}.put(block_table(p, t), p.step->positions[t], {writer.base(op.k)}, {op.k.strides[0]},",
            f"             {writer.base(op.v)}, {op.v.strides[0]});",
        ]

    def say_store(self, op: Attention) -> str:
        return f"store %{op.k.name}, %{op.v.name} in the KV pages"

    def write_section(self, names: Names, op: Attention) -> list[str]:
        q, out = names.plan.places[op.q.name], names.plan.places[op.out.name]
        offset = f" + {op.q.offset}" if op.q.offset else ""
        return [
            f"  attention<Kv>(w, {_shape(names, op)}, p.kv, batch_of(*p.step),",
            f"            row(p, {q.offset}, {q.stride}, 0){offset}, {q.stride}, {op.q.strides[0]},",
            f"            row(p, {out.offset}, {out.stride}, 0), {out.stride}, p.partials);",
        ]


def _shape(names: Names, op: Attention) -> str:
    """The AttentionShape of an op, as an expression."""
    bias, bias_stride = "nullptr", 0
    if op.bias is not None:
        bias, bias_stride = f"p.constants + {names.plan.constants[op.bias]}", names.plan.program.max_seq_length
    sinks = "nullptr" if op.sinks is None else names.weight(op.sinks)
    return (
        f"AttentionShape{{{op.q.shape[0]}, {op.k.shape[0]}, {op.k.shape[1]}, {op.v.shape[1]}, {number(op.scale)},"
        f" {op.window}, {number(op.softcap)}, {bias}, {bias_stride}, {sinks}, kPageBytes, {names.state_offset(op)}}}"
    )
