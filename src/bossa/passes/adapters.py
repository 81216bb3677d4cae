"""Room for adapters: linears that add the low-rank pairs of a row's adapter to their sums."""

from __future__ import annotations

from dataclasses import replace

from bossa.ir.program import Loop, Op, Program
from bossa.ops import Linear


def take_adapters(program: Program) -> Program:
    """Let every linear of an optimized program take adapters; nothing else of it changes."""

    def adapted(op: Op) -> Op:
        match op:
            case Loop():
                return replace(op, body=tuple(adapted(inner) for inner in op.body))
            case Linear():
                return replace(op, adapted=True)
            case _:
                return op

    return replace(program, body=tuple(adapted(op) for op in program.body))
