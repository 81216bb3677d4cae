"""Logits for the rows that are asked for: everything that follows the last attention, on those rows alone."""

from __future__ import annotations

from dataclasses import replace

from bossa.ir.program import Op, Program, StatefulOp, outputs, reads
from bossa.ir.values import Value, View, whole
from bossa.ops import Select
from bossa.passes.rewrite import straight_ops


def select_rows(program: Program) -> Program:
    """Put a selection where a single value is alive and all that follows is local to its row.

    It goes just before the final norm: after the last residual sum, so that the layers stay alike and roll into a loop.
    Where two values or more are alive up to the logits, these themselves are selected from.
    """
    body = list(straight_ops(program))
    last = max((i for i, op in enumerate(body) if isinstance(op, StatefulOp)), default=-1)
    candidates: list[tuple[int, str, bool]] = []  # where, what is alive there, whether several ops read it
    for cut in range(last + 1, len(body)):
        before = {value.name for op in body[:cut] for value in outputs(op)}
        alive = {name for op in body[cut:] for name in reads(op) if name in before}
        if len(alive) == 1:
            readers = sum(bool(reads(op) & alive) for op in body[cut:])
            candidates.append((cut, alive.pop(), readers > 1))
    if not candidates:
        logits = next(value for op in body for value in outputs(op) if value.name == program.output)
        chosen = Value(f"{logits.name}_selected", logits.shape)
        return replace(program, body=(*body, Select(chosen, whole(logits))), output=chosen.name)
    streams = [candidate for candidate in candidates if candidate[2]]
    cut, name, _ = streams[-1] if streams else candidates[0]
    value = next(v for op in body for v in outputs(op) if v.name == name)
    chosen = Value(f"{name}_selected", value.shape)

    def moved(view: View) -> View:
        return replace(view, name=chosen.name) if view.space == "value" and view.name == name else view

    after: list[Op] = [op.map_operands(moved) for op in body[cut:]]
    return replace(program, body=(*body[:cut], Select(chosen, whole(value)), *after))
