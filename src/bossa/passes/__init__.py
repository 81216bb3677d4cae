"""Passes over row programs, each a pure function Program -> Program, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable

from bossa.passes.canonical import canonical
from bossa.passes.fuse import fuse_epilogues, inline_maps, merge_linears
from bossa.passes.rewrite import keep_used
from bossa.passes.roll import roll_layers
from bossa.passes.select import select_rows
from bossa.program.ir import Program

Pass = Callable[[Program], Program]

PASSES: tuple[Pass, ...] = (
    canonical,
    inline_maps,
    fuse_epilogues,
    merge_linears,
    keep_used,
    select_rows,
    roll_layers,
)


def optimize(program: Program) -> Program:
    """Run every pass."""
    for run in PASSES:
        program = run(program)
    return program


__all__ = ["PASSES", "Pass", "optimize"]
