"""One line of a program's text, taken from the left: tokens, names, numbers, views and expressions."""

from __future__ import annotations

import json
import re
from math import isinf
from typing import Any

from bossa.errors import ProgramError, shown
from bossa.ir import bounds
from bossa.ir.functions import FUNCTIONS
from bossa.ir.names import is_name
from bossa.ir.notation import PLAIN, SIGILS
from bossa.ir.values import Apply, Cat, Const, Expr, Shape, Space, Value, View, contiguous_strides

_SPACES: dict[str, Space] = {sigil: space for space, sigil in SIGILS.items()}
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?(?:inf|nan|\d+(?:\.\d*)?(?:e[+-]?\d+)?)(?![A-Za-z_0-9]))"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>[%$!#\[\](){}<>,:|+=]))""",
    re.ASCII,
)


class Line:
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
        if abs(number) > bounds.INTEGER:
            raise self.error(f"a number of at most {bounds.INTEGER} before")
        return number

    def real(self) -> float:
        token = self.take()
        try:
            number = float(token)
        except ValueError:
            raise self.error("a number") from None
        if isinf(number) and not token.endswith("inf"):  # it would be taken for one that is meant to be infinite
            raise self.error("a number that a float32 holds before")
        return number

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

    def shape(self) -> Shape:
        """``[12,64]``."""
        self.take("[")
        shape, mark = self.dims()
        if mark != "]":
            raise self.error("] before")
        return shape

    def end(self) -> None:
        if self.peek() or self.text[self.at :].strip():
            raise self.error("the end of the line")

    def dims(self, end: str = "]") -> tuple[Shape, str]:
        values: list[int] = []
        while self.peek() not in (end, "|"):
            values.append(self.integer())
            if not self.accept(","):
                break
            if len(values) > bounds.AXES:
                raise self.error(f"at most {bounds.AXES} axes before")
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
        if depth > bounds.DEPTH:
            raise ProgramError(f"line {self.number}: an expression that is nested more than {bounds.DEPTH} deep")
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
