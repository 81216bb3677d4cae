"""Row programs as text, printed for people and for the PEF; `parse` reads it back."""

from __future__ import annotations

import json

from bossa.ir.notation import show_dims, show_name, show_value
from bossa.ir.program import Loop, Op, Program


def show(op: Op, indent: str = "") -> str:
    """An op on one line (a loop: on several)."""
    if not isinstance(op, Loop):
        return f"{indent}{show_value(op.out)} = {op.keyword} {op.text()}"
    lines = [f"{indent}loop {op.count} layers {op.layers} {{"]
    for c in op.carried:
        lines.append(
            f"{indent}  carry {show_name('value', c.init)} as {show_value(c.inner)} next {show_name('value', c.step)}"
            f" result {show_value(c.result)}"
        )
    for formal, actual in op.weights:
        lines.append(f"{indent}  weight {json.dumps(formal)} is {json.dumps(list(actual))}")
    lines += [show(inner, indent + "  ") for inner in op.body]
    return "\n".join([*lines, f"{indent}}}"])


def print_program(program: Program) -> str:
    """The whole program; the tables' contents are not in it."""
    lines = [
        f"program {json.dumps(program.name)} vocabulary {program.vocab_size} positions {program.max_seq_length}"
        f" output {show_name('value', program.output)}"
    ]
    for name, table in program.tables.items():
        lines.append(f"table {show_name('table', name)} {table.dtype.name} [{show_dims(table.shape)}]")
    lines += [f"slot {json.dumps(slot.to_json())}" for slot in program.slots.values()]
    lines += [show(op) for op in program.body]
    return "\n".join(lines) + "\n"
