"""Row-program expressions as C++ over 16 lanes."""

from __future__ import annotations

from collections.abc import Callable
from math import isinf, isnan

from bossa.ir.values import Apply, Const, Expr, View, views
from bossa.targets.cpu.emit.loops import shared

_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def number(value: float) -> str:
    """A C++ float literal of exactly this value rounded to fp32."""
    if isnan(value):
        return '__builtin_nanf("")'
    if isinf(value):
        return "kInfinity" if value > 0 else "-kInfinity"
    if abs(value) > 3.4028235e38:
        return "kInfinity" if value > 0 else "-kInfinity"
    text = repr(float(value))
    return (text if "." in text or "e" in text else text + ".0") + "f"


class ExprWriter:
    """Writes one expression for one innermost loop: what does not change in it goes before it.

    Attributes:
        before: statements ahead of the loop.
        inside: statements of the loop.
    """

    def __init__(self, load: Callable[[View], str], varies: Callable[[View], bool]) -> None:
        self.load = load
        self.varies = varies
        self.before: list[str] = []
        self.inside: list[str] = []
        self.names: dict[Expr, str] = {}
        self.shared: set[Expr] = set()

    def emit(self, expr: Expr) -> str:
        """The C++ of `expr`; values used twice get names."""
        self.shared = shared(expr)
        return self.text(expr, top=True)

    def moves(self, expr: Expr) -> bool:
        return any(self.varies(view) for view in views(expr))

    def text(self, expr: Expr, top: bool = False, outer_moves: bool = True) -> str:
        if expr in self.names:
            return self.names[expr]
        if isinstance(expr, Const):
            return f"splat({number(expr.value)})"
        moves = self.moves(expr)
        if isinstance(expr, View):
            code = self.load(expr)
        else:
            assert isinstance(expr, Apply)
            code = self.apply(expr, moves)
        hoist = not moves and outer_moves
        if hoist or (expr in self.shared and not top):
            name = f"{'s' if not moves else 'x'}{len(self.names)}"
            self.names[expr] = name
            (self.before if not moves else self.inside).append(f"const f16 {name} = {code};")
            return name
        return code

    def apply(self, expr: Apply, moves: bool) -> str:
        args = [self.text(arg, outer_moves=moves) for arg in expr.args]
        if expr.function in _OPERATORS:
            return f"({args[0]} {_OPERATORS[expr.function]} {args[1]})"
        if expr.function == "neg":
            return f"-({args[0]})" if args[0].startswith("-") else f"-{args[0]}"
        return f"{expr.function}({', '.join(args)})"
