"""Row programs parsed from the text that `text` prints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.errors import ProgramError
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
from bossa.program.text import SIGILS
from bossa.weights.slot import Slot

_SPACES: dict[str, Space] = {sigil: space for space, sigil in SIGILS.items()}
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?(?:inf|nan|\d+(?:\.\d*)?(?:e[+-]?\d+)?)(?![A-Za-z_0-9]))"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>[%$!#\[\](){}<>,:|+=]))"""
)


class _Line:
    """Tokens of one line, taken from the left."""

    def __init__(self, text: str, number: int) -> None:
        self.text = text
        self.number = number
        self.at = 0

    def error(self, wanted: str) -> ProgramError:
        return ProgramError(f"line {self.number}: expected {wanted} at column {self.at + 1}: {self.text.strip()[:80]}")

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
            return int(self.take())
        except ValueError:
            raise self.error("a whole number") from None

    def real(self) -> float:
        try:
            return float(self.take())
        except ValueError:
            raise self.error("a number") from None

    def json(self) -> Any:
        try:
            return json.loads(self.text[self.at :])
        except ValueError:
            raise self.error("JSON") from None

    def string(self) -> str:
        token = self.take()
        return str(json.loads(token)) if token.startswith('"') else token

    def name(self, sigil: str) -> str:
        self.take(sigil)
        return self.string()

    def dims(self, end: str = "]") -> tuple[Shape, str]:
        values: list[int] = []
        while self.peek() not in (end, "|"):
            values.append(self.integer())
            if not self.accept(","):
                break
        return tuple(values), self.take()

    def value(self) -> Value:
        name = self.name("%")
        self.take("[")
        return Value(name, self.dims()[0])

    def view(self) -> View:
        expr = self.expr()
        if not isinstance(expr, View):
            raise self.error("a view")
        return expr

    def expr(self) -> Expr:
        token = self.peek()
        if token in _SPACES:
            name = self.name(token)
            self.take("[")
            shape, mark = self.dims()
            strides = self.dims()[0] if mark == "|" else contiguous_strides(shape)
            if len(strides) != len(shape):
                raise self.error("a stride for each axis")
            offset = self.integer() if self.accept("+") else 0
            return View(_SPACES[token], name, shape, strides, offset)
        if token in FUNCTIONS:
            self.take()
            self.take("(")
            args = [self.expr()]
            while self.accept(","):
                args.append(self.expr())
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
                parts.append(self.expr())
                if not self.accept(","):
                    break
            self.take(")")
            return Cat(axis, tuple(sizes), tuple(parts))
        return Const(self.real())


def parse_program(text: str, tables: Mapping[str, NDArray[Any]] | None = None) -> Program:
    """The program that `print_program` printed.

    Args:
        tables: the tables' contents by name; zeros without them.

    Raises:
        ProgramError: naming the line and the column.
    """
    lines = [_Line(line, number) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ProgramError("line 1: expected a program, found nothing")
    head, *rest = lines
    head.take("program")
    name = head.string()
    head.take("vocabulary")
    vocabulary = head.integer()
    head.take("positions")
    positions = head.integer()
    head.take("output")
    output = head.name("%")
    slots: dict[str, Slot] = {}
    found: dict[str, NDArray[Any]] = {}
    while rest and rest[0].peek() in ("table", "slot"):
        line = rest.pop(0)
        if line.take() == "table":
            table = line.name("!")
            kind = line.take()
            line.take("[")
            shape, _ = line.dims()
            if kind not in ("float32", "int32"):
                raise line.error("float32 or int32")
            found[table] = tables[table] if tables is not None else np.zeros(shape, kind)
        else:
            try:
                slot = Slot.from_json(line.json())
            except (KeyError, TypeError, ValueError):
                raise line.error("a slot") from None
            slots[slot.name] = slot
    body = _ops(rest, end=False)
    return Program(name, vocabulary, positions, tuple(body), output, slots, found)


def _ops(lines: list[_Line], *, end: bool) -> list[Op]:
    ops: list[Op] = []
    while lines:
        line = lines.pop(0)
        if end and line.peek() == "}":
            return ops
        ops.append(_loop(line, lines) if line.peek() == "loop" else _op(line))
    if end:
        raise ProgramError("the last line: expected } of a loop")
    return ops


def _loop(line: _Line, lines: list[_Line]) -> Loop:
    line.take("loop")
    count = line.integer()
    line.take("layers")
    layers = line.integer()
    line.take("{")
    carried: list[Carried] = []
    weights: list[tuple[str, tuple[str, ...]]] = []
    while lines and lines[0].peek() in ("carry", "weight"):
        line = lines.pop(0)
        if line.take() == "carry":
            init = line.name("%")
            line.take("as")
            inner = line.value()
            line.take("next")
            step = line.name("%")
            line.take("result")
            carried.append(Carried(init, inner, step, line.value()))
        else:
            formal = line.string()
            line.take("is")
            weights.append((formal, tuple(line.json())))
    return Loop(count, layers, tuple(carried), tuple(weights), tuple(_ops(lines, end=True)))


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
        domain, _ = line.dims()
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
    if line.peek():
        raise line.error("the end of the line")
    return op
