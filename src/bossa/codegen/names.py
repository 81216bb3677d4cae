"""What a section's C++ calls things: packed weights, arena rows, position tables, attention shapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from bossa.codegen.expressions import number
from bossa.codegen.plan import Plan
from bossa.program.ir import Attention, Loop, View, weights_of
from bossa.weights.slot import Slot

TYPES = {
    **{"fp32": "float", "bf16": "bf16", "int8": "Int8", "int6": "Int6", "int4": "Int4"},
    **{"int6-a16": "Int6A16", "int4-a16": "Int4A16", "int6-a8": "Int6A8", "int4-a8": "Int4A8"},
}
KV_TYPES = {"fp32": "float", "bf16": "bf16", "int8": "int8_t"}


def identifier(name: str) -> str:
    """A C++ name for a value, a weight or a table."""
    return "".join(c if c.isalnum() else "_" for c in name)


def pointer(view: View) -> str:
    """The C++ pointer that a view's elements are counted from."""
    return ("w_" if view.space == "weight" else "") + identifier(view.name)


def address(indices: list[str], strides: tuple[int, ...] | list[int]) -> str:
    """``i * 64 + j``: loop indices times strides; empty where all strides are 0."""
    return " + ".join(
        index if stride == 1 else f"{index} * {stride}"
        for index, stride in zip(indices, strides, strict=True)
        if stride
    )


def store(place: str, code: str, n: str | None = None, step: int = 1) -> str:
    """The statement that stores 16 lanes, or the first `n`, `step` floats apart."""
    if n == "1":
        return f"store_n({place}, {code}, 1);"
    if step != 1:
        return f"store_strided({place}, {step}, {code}, {n or 16});"
    return f"store({place}, {code});" if n is None else f"store_n({place}, {code}, {n});"


@dataclass(frozen=True)
class Names:
    """The names in one section: of which loop it is a part, if any, and whether it runs on the selected rows."""

    plan: Plan
    loop: Loop | None
    selected: bool
    slot_index: dict[str, int] = field(repr=False)

    @property
    def rows(self) -> str:
        """How many rows the section runs on."""
        return "p.step->logit_count" if self.selected else "p.step->rows"

    def slot(self, name: str) -> Slot:
        """The slot behind a weight's name; in a loop, that of the first iteration."""
        if self.loop is not None:
            name = dict(self.loop.weights).get(name, (name,))[0]
        return self.plan.program.slots[name]

    def weight(self, name: str) -> str:
        """The packed weight, as a typed pointer."""
        kind = TYPES[self.slot(name).dtype]
        if self.loop is not None:
            return f"slot<{kind}>(p, slots[{weights_of(self.loop).index(name)}])"
        return f"slot<{kind}>(p, {self.slot_index[name]})"

    def row(self, name: str, t: str) -> str:
        """Row `t` of a value that outlives its section."""
        if name == self.plan.program.output:
            return f"p.step->logits + (size_t){t} * kVocabulary"
        place = self.plan.places[name]
        return f"row(p, {place.offset}, {place.stride}, {t})"

    def table(self, name: str, t: str, kind: str = "float") -> str:
        """The row of a position table for packed row `t`; a table of one row is a constant."""
        table = self.plan.program.tables[name]
        base = f"p.constants + {self.plan.constants[name]}"
        if kind != "float":
            base = f"(const {kind}*)({base})"
        if len(table) == 1:
            return base
        row = f"p.step->logit_rows[{t}]" if self.selected else t
        return f"{base} + (size_t)p.step->positions[{row}] * {prod(table.shape[1:])}"

    def attention_shape(self, op: Attention) -> str:
        """The AttentionShape of an op, as an expression."""
        offsets = self.plan.kv_offsets
        offset = str(offsets[op.layer])
        if self.loop is not None:
            offset += f" + (size_t)i * {offsets[op.layer + self.loop.layers] - offsets[op.layer]}"
        bias, bias_stride = "nullptr", 0
        if op.bias is not None:
            bias, bias_stride = f"p.constants + {self.plan.constants[op.bias]}", self.plan.program.max_seq_length
        sinks = "nullptr" if op.sinks is None else self.weight(op.sinks)
        return (
            f"AttentionShape{{{op.q.shape[0]}, {op.k.shape[0]}, {op.k.shape[1]}, {op.v.shape[1]}, {number(op.scale)},"
            f" {op.window}, {number(op.softcap)}, {bias}, {bias_stride}, {sinks}, kPageBytes, {offset}}}"
        )
