"""What may be called what in a program: nothing that could be more than a name wherever it is printed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bossa.errors import shown
from bossa.ir.program import Attention, Embed, Linear, Loop, Op, Program, outputs

LONGEST = 4096
_NAME = re.compile(rf"[\w.*\-/:+\[\]()@,='|]{{1,{LONGEST}}}")
"""Letters, digits and the marks that tensors' names have: no space, quote, backslash or line break."""
LONGEST_TITLE = 255


def is_name(text: object) -> bool:
    """Whether a value, a weight, a table or a tensor may be called this."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def is_title(text: object) -> bool:
    """Whether a program may be called this: one line of text that can be shown as it is."""
    return isinstance(text, str) and 0 < len(text) <= LONGEST_TITLE and shown(text) == text


def names_in(program: Program) -> Iterator[object]:
    """Every name in a program but its own and those in expressions, with repeats."""
    yield program.output
    yield from program.tables
    for name, slot in program.slots.items():
        yield name
        yield slot.name
        for source in slot.sources:
            yield from source.names
    yield from _of_ops(program.body)


def _of_ops(ops: tuple[Op, ...]) -> Iterator[object]:
    for op in ops:
        yield from (value.name for value in outputs(op))
        match op:
            case Loop():
                for carried in op.carried:
                    yield from (carried.init, carried.inner.name, carried.step)
                for formal, actual in op.weights:
                    yield formal
                    yield from actual
                yield from _of_ops(tuple(inner for inner in op.body if not isinstance(inner, Loop)))
            case Embed():
                yield from (op.weight, op.index)
            case Linear():
                yield from (op.weight, op.weight if op.bias is None else op.bias)
            case Attention():
                yield from (name for name in (op.bias, op.sinks) if name is not None)
            case _:
                pass
