"""Row programs parsed from the text that `text` prints."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.checks.shown import shown
from bossa.errors import ProgramError
from bossa.program import limits
from bossa.program.functions import FUNCTIONS
from bossa.program.ir import (
    Apply,
    Attention,
    Carried,
    Cat,
    Const,
    Embed,
    Expr,
    Linear,
    Loop,
    Map,
    Op,
    Program,
    Reduce,
    Select,
    Shape,
    Space,
    Value,
    View,
    contiguous_strides,
)
from bossa.program.names import is_name, is_title
from bossa.program.slots import is_texts, read_slot
from bossa.program.text import PLAIN, SIGILS
from bossa.weights.slot import Slot

_SPACES: dict[str, Space] = {sigil: space for space, sigil in SIGILS.items()}
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?(?:inf|nan|\d+(?:\.\d*)?(?:e[+-]?\d+)?)(?![A-Za-z_0-9]))"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>[%$!#\[\](){}<>,:|+=]))""",
    re.ASCII,
)


class _Line:
    """Tokens of one line, taken from the left."""

    def __init__(self, text: str, number: int) -> None:
        self.text = text
        self.number = number
        self.at = 0

    def error(self, wanted: str) -> ProgramError:
        text = shown(self.text[:200].strip()[:80])
        return ProgramError(f"line {self.number}: expected {wanted} at column {self.at + 1}: {text}")

    def peek(self) -> str:
        found = _TOKEN.match(self.text, self.at)
        return found.group().strip() if found else ""

    def take(self, wanted: str | None = None) -> str:
        found = _TOKEN.match(self.text, self.at)
        token = found.group().strip() if found else ""
        if not token or (wanted is not None and token != wanted):
            raise self.error(wanted or "more")
        assert found is not None
        self.at = found.end()
        return token

    def accept(self, token: str) -> bool:
        if self.peek() == token:
            self.take()
            return True
        return False

    def integer(self) -> int:
        try:
            number = int(self.take())
        except ValueError:
            raise self.error("a whole number") from None
        if abs(number) > limits.INTEGER:
            raise self.error(f"a number of at most {limits.INTEGER} before")
        return number

    def real(self) -> float:
        try:
            return float(self.take())
        except ValueError:
            raise self.error("a number") from None

    def json(self) -> Any:
        """The rest of the line."""
        try:
            value = json.loads(self.text[self.at :])
        except (ValueError, RecursionError):
            raise self.error("JSON") from None
        self.at = len(self.text)
        return value

    def string(self) -> str:
        token = self.take()
        if not token.startswith('"'):
            return token
        try:
            return str(json.loads(token))
        except ValueError:
            raise self.error("a string of JSON before") from None

    def name(self, sigil: str) -> str:
        self.take(sigil)
        return self.bare_name()

    def bare_name(self) -> str:
        """A name without a sigil.

        Raises:
            ProgramError: it is none, or has letters that a name may not have.
        """
        quoted = self.peek().startswith('"')
        name = self.string()
        if not (quoted or PLAIN.fullmatch(name)):
            raise self.error("a name before")
        return self.checked(name)

    def checked(self, name: str) -> str:
        if not is_name(name):
            why = f"'{shown(name[:80])[:80]}' is not a name that may stand in a program"
            raise ProgramError(f"line {self.number}: {why}")
        return name

    def end(self) -> None:
        if self.peek() or self.text[self.at :].strip():
            raise self.error("the end of the line")

    def dims(self, end: str = "]") -> tuple[Shape, str]:
        values: list[int] = []
        while self.peek() not in (end, "|"):
            values.append(self.integer())
            if not self.accept(","):
                break
            if len(values) > limits.AXES:
                raise self.error(f"at most {limits.AXES} axes before")
        mark = self.take()
        if mark not in (end, "|"):
            raise self.error(f"{end} before")
        return tuple(values), mark

    def value(self) -> Value:
        name = self.name("%")
        self.take("[")
        shape, mark = self.dims()
        if mark != "]":
            raise self.error("] before")
        return Value(name, shape)

    def view(self) -> View:
        expr = self.expr()
        if not isinstance(expr, View):
            raise self.error("a view")
        return expr

    def expr(self, depth: int = 1) -> Expr:
        token = self.peek()
        if depth > limits.DEPTH:
            raise ProgramError(f"line {self.number}: an expression that is nested more than {limits.DEPTH} deep")
        if token in _SPACES:
            name = self.name(token)
            self.take("[")
            shape, mark = self.dims()
            strides, mark = self.dims() if mark == "|" else (contiguous_strides(shape), mark)
            if len(strides) != len(shape) or mark != "]":
                raise self.error("a stride for each axis")
            offset = self.integer() if self.accept("+") else 0
            return View(_SPACES[token], name, shape, strides, offset)
        if token in FUNCTIONS:
            self.take()
            self.take("(")
            args = [self.expr(depth + 1)]
            while self.accept(","):
                args.append(self.expr(depth + 1))
            self.take(")")
            if len(args) != FUNCTIONS[token].arity:
                raise self.error(f"{FUNCTIONS[token].arity} arguments of {token}")
            return Apply(token, tuple(args))
        if token == "cat":
            self.take()
            self.take("<")
            axis = self.integer()
            self.take(">")
            self.take("(")
            sizes, parts = [], []
            while True:
                sizes.append(self.integer())
                self.take(":")
                parts.append(self.expr(depth + 1))
                if not self.accept(","):
                    break
            self.take(")")
            return Cat(axis, tuple(sizes), tuple(parts))
        return Const(self.real())


def parse_program(text: str, tables: Mapping[str, NDArray[Any]] | None = None) -> Program:
    """The program that `print_program` printed.

    Args:
        tables: the tables' contents by name; zeros that take no memory without them.

    Raises:
        ProgramError: naming the line and the column, or a table that is not what the program says.
    """
    if text.count("\n") >= limits.LINES:
        raise ProgramError(f"line {limits.LINES}: expected the end: a program has fewer lines")
    lines = deque(_Line(line, number) for number, line in enumerate(text.split("\n"), 1) if line.strip())
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


def _table(line: _Line, tables: Mapping[str, NDArray[Any]] | None) -> tuple[str, NDArray[Any]]:
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


def _ops(lines: deque[_Line], *, inside: bool) -> list[Op]:
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


def _loop(line: _Line, lines: deque[_Line]) -> Loop:
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


def _op(line: _Line) -> Op:
    out = line.value()
    line.take("=")
    kind = line.take()
    op: Op
    if kind == "embed":
        weight = line.name("$")
        op = Embed(out, weight, "tokens" if line.accept("tokens") else line.name("!"))
    elif kind == "linear":
        x, weight = line.view(), line.name("$")
        bias = line.name("$") if line.accept("bias") else None
        parts = line.integer() if line.accept("parts") else 1
        op = Linear(out, x, weight, bias, line.expr() if line.accept("then") else None, parts)
    elif kind == "map":
        op = Map(out, line.expr())
    elif kind == "reduce":
        reduction, axes = line.take(), line.integer()
        if reduction not in ("sum", "mean", "max", "min"):
            raise line.error("sum, mean, max or min")
        line.take("[")
        domain, mark = line.dims()
        if mark != "]":
            raise line.error("] before")
        op = Reduce(out, reduction, domain, axes, line.expr())  # type: ignore[arg-type]
    elif kind == "attention":
        q, k, v = line.view(), line.view(), line.view()
        line.take("layer")
        layer = line.integer()
        line.take("scale")
        scale = line.real()
        line.take("window")
        window = line.integer()
        line.take("softcap")
        softcap = line.real()
        bias = line.name("!") if line.accept("bias") else None
        sinks = line.name("$") if line.accept("sinks") else None
        op = Attention(out, q, k, v, layer, scale, window, softcap, bias, sinks)
    elif kind == "select":
        op = Select(out, line.view())
    else:
        raise line.error("embed, linear, map, reduce, attention or select")
    line.end()
    return op
