"""Passes over row programs, each a pure function Program -> Program, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable

from bossa.formats.precision import Precision
from bossa.ir.program import Program
from bossa.ir.verify import verify
from bossa.passes.activations import name_activations
from bossa.passes.adapters import take_adapters
from bossa.passes.canonical import canonical
from bossa.passes.formats import choose_formats
from bossa.passes.fuse import fuse_epilogues, inline_maps, merge_linears
from bossa.passes.rewrite import keep_used
from bossa.passes.roll import roll_layers
from bossa.passes.select import select_rows

Pass = Callable[[Program], Program]

PASSES: tuple[Pass, ...] = (
    canonical,
    inline_maps,
    name_activations,
    fuse_epilogues,
    merge_linears,
    keep_used,
    select_rows,
    roll_layers,
)


def optimize(program: Program, precision: Precision = "fp32", *, adapters: bool = False) -> Program:
    """Store the weights in a precision, run every pass, and verify the program before the first and after each.

    Args:
        adapters: whether the program takes adapters.

    Raises:
        ProgramError: the program, or what a pass made of it, is malformed.
    """
    verify(program)
    program = choose_formats(program, precision)
    for run in PASSES:
        program = run(program)
        verify(program)
    return take_adapters(program) if adapters else program


__all__ = ["PASSES", "Pass", "choose_formats", "optimize"]
