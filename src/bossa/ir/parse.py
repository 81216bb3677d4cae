"""Row programs parsed from the text that `text` prints."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.errors import ProgramError, shown
from bossa.ir import bounds
from bossa.ir.line import Line
from bossa.ir.names import is_title
from bossa.ir.op import KINDS
from bossa.ir.program import Carried, Loop, Op, Program, RowOp
from bossa.ir.slot import Slot
from bossa.ir.slots import is_texts, read_slot


def parse_program(text: str, tables: Mapping[str, NDArray[Any]] | None = None) -> Program:
    """The program that `print_program` printed.

    Args:
        tables: the tables' contents by name; zeros that take no memory without them.

    Raises:
        ProgramError: naming the line and the column, or a table that is not what the program says.
    """
    if text.count("\n") >= bounds.LINES:
        raise ProgramError(f"line {bounds.LINES}: expected the end: a program has fewer lines")
    lines = _lines(text)
    if not lines:
        raise ProgramError("line 1: expected a program, found nothing")
    head = lines.popleft()
    head.take("program")
    name = head.string()
    if not is_title(name):
        raise ProgramError(f"line {head.number}: '{shown(name[:80])[:80]}' is not a name that may stand in a program")
    head.take("vocabulary")
    vocabulary = head.integer()
    head.take("positions")
    positions = head.integer()
    head.take("output")
    output = head.name("%")
    head.end()
    slots: dict[str, Slot] = {}
    found: dict[str, NDArray[Any]] = {}
    while lines and lines[0].peek() in ("table", "slot"):
        line = lines.popleft()
        if line.take() == "table":
            table, array = _table(line, tables)
            if table in found:
                raise ProgramError(f"line {line.number}: table {table} is there twice")
            found[table] = array
            continue
        slot = read_slot(line.json())
        if slot is None:
            raise line.error("a slot before")
        for used in (slot.name, *(name for source in slot.sources for name in source.names)):
            line.checked(used)
        if slot.name in slots:
            raise ProgramError(f"line {line.number}: slot {slot.name} is there twice")
        slots[slot.name] = slot
    body = _ops(lines, inside=False)
    return Program(name, vocabulary, positions, tuple(body), output, slots, found)


def _table(line: Line, tables: Mapping[str, NDArray[Any]] | None) -> tuple[str, NDArray[Any]]:
    name = line.name("!")
    kind = line.take()
    line.take("[")
    shape, mark = line.dims()
    line.end()
    if kind not in ("float32", "int32"):
        raise line.error("float32 or int32")
    if mark != "]" or min(shape, default=1) < 0:
        raise line.error("extents")
    if tables is None:
        return name, np.broadcast_to(np.zeros((), kind), shape)
    array = tables.get(name)
    if array is None or array.shape != shape or array.dtype != np.dtype(kind):
        held = "missing" if array is None else f"{array.dtype.name} {list(array.shape)}"
        raise ProgramError(f"line {line.number}: table {name} is {kind} {list(shape)} here, and what is stored {held}")
    return name, array


def _lines(text: str) -> deque[Line]:
    """The lines that say something.

    Raises:
        ProgramError: more of them are of ops than a program has, which is told before any of them is read.
    """
    lines: deque[Line] = deque()
    ops, inside = 0, False
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split(maxsplit=1)
        if not words:
            continue
        lines.append(Line(line, number))
        if words[0] == "loop":
            ops += not inside  # one in another is refused where it is read
            inside = True
        elif words[0].startswith("}"):
            inside = False
        elif words[0].startswith("%"):
            ops += 1 if inside else 2  # as `limits` counts them
        if ops > 2 * bounds.OPS:
            raise ProgramError(f"line {number}: it has more than {bounds.OPS} ops")
    return lines


def _ops(lines: deque[Line], *, inside: bool) -> list[Op]:
    ops: list[Op] = []
    while lines:
        line = lines.popleft()
        if inside and line.peek() == "}":
            line.take()
            line.end()
            return ops
        if line.peek() != "loop":
            ops.append(_op(line))
        elif inside:
            raise ProgramError(f"line {line.number}: a loop in a loop")
        else:
            ops.append(_loop(line, lines))
    if inside:
        raise ProgramError("the last line: expected } of a loop")
    return ops


def _loop(line: Line, lines: deque[Line]) -> Loop:
    line.take("loop")
    count = line.integer()
    line.take("layers")
    layers = line.integer()
    line.take("{")
    line.end()
    carried: list[Carried] = []
    weights: list[tuple[str, tuple[str, ...]]] = []
    while lines and lines[0].peek() in ("carry", "weight"):
        line = lines.popleft()
        if line.take() == "carry":
            init = line.name("%")
            line.take("as")
            inner = line.value()
            line.take("next")
            step = line.name("%")
            line.take("result")
            carried.append(Carried(init, inner, step, line.value()))
            line.end()
        else:
            formal = line.bare_name()
            line.take("is")
            actual = line.json()
            if not is_texts(actual):
                raise line.error("a list of slots before")
            weights.append((formal, tuple(line.checked(name) for name in actual)))
    return Loop(count, layers, tuple(carried), tuple(weights), tuple(_ops(lines, inside=True)))


def _op(line: Line) -> RowOp:
    out = line.value()
    line.take("=")
    kind = KINDS.get(line.take())
    if kind is None:
        *most, last = sorted(KINDS)
        raise line.error(f"{', '.join(most)} or {last}")
    op = kind.parse(out, line)
    line.end()
    return op
