"""How each weight is stored: the precision that was asked for, where it pays."""

from __future__ import annotations

from dataclasses import replace

from bossa.formats.precision import Precision
from bossa.ir.program import Program
from bossa.ir.slot import Slot
from bossa.ops import Embed, Linear
from bossa.passes.rewrite import straight_ops

_HEAD: dict[Precision, str] = {"int4": "int6", "int4-a8": "int6-a8"}
"""What the linear that makes the logits is stored as where that is not the precision itself: its errors are those of
the logits, and a tied embedding is read from it."""
_TABLE: dict[Precision, str] = {"int4": "int8", "int4-a8": "int8"}
"""The same for a table of token embeddings, of which a step reads few rows."""


def choose_formats(program: Program, precision: Precision) -> Program:
    """Store the matrices of linears and the embeddings of tokens in a precision; all else stays in fp32.

    Position tables are small, and vectors are read whole: neither is worth less than fp32.
    """
    tokens: set[str] = set()
    heads: set[str] = set()

    for op in straight_ops(program):
        if isinstance(op, Embed) and op.index == "tokens":
            tokens.add(op.weight)
        elif isinstance(op, Linear) and op.out.name == program.output:
            heads.add(op.weight)

    def stored(slot: Slot) -> str:
        if slot.layout == "panels":
            return _HEAD.get(precision, precision) if slot.name in heads else precision
        if slot.layout == "rows" and slot.name in tokens:
            return _TABLE.get(precision, precision)
        return "fp32"

    slots = {name: replace(slot, dtype=stored(slot)) for name, slot in program.slots.items()}
    return replace(program, slots=slots)
