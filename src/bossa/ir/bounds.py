"""How large anything in a program may be: far above what models are, and low enough that all that is made of it ends.

Sizes are products of a few numbers of a file, so that a line of text could ask for more memory, code or time than there
is. Every number, size and depth is bounded before anything is computed from it; that needs neither recursion nor more
than one look at each part of the program.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isinf, prod

from bossa.errors import ProgramError, shown
from bossa.ir.names import is_name
from bossa.ir.values import Apply, Cat, Const, Expr, Shape, View

INTEGER = 2**31 - 1
"""The largest whole number in a program: what the generated code counts with."""
REAL = 2.0**128 - 2.0**103
"""What the numbers of a program stay below: from here on a float32 is infinite, which is written as such."""
AXES = 16
ELEMENTS = 1 << 22
"""Of a value's row, or of a domain. A vocabulary of 262,144 is a sixteenth of it."""
SLOT_ELEMENTS = 1 << 42
STORED_VALUES = 1 << 17
"""Of a row, in one attention: heads of keys times features of values."""
QUERY_FLOATS = 32_000
"""``dim + 2 v_dim`` of a head: what a unit of work of the attention kernels has room for."""
DEPTH = 200
"""Of an expression."""
NODES = 1 << 14
"""Of an expression: views, numbers, functions and joins."""
BOXES = 1 << 10
"""That the joins of an expression cut its domain into."""
EMITTED = 1 << 18
"""Nodes of an expression in all its boxes together: what is written as code."""
LINES = 1 << 18
"""Of a program's text."""
OPS = 20_000
"""The bodies of loops counted once."""
ITERATIONS = 4096
LAYERS = 1 << 14
SLOT_NUMBERS = 1 << 20
"""In the table of a loop: its iterations times the weights of its body."""
WORK = 1 << 34
"""Nodes times elements of a row's pointwise work, all ops together; a second or so."""


class Bounds:
    """Bounds on one program, an op at a time.

    Attributes:
        place: what is looked at, for messages.
        work: pointwise steps of a row so far.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.place = "the program"
        self.work = 0

    def need(self, holds: bool, why: str) -> None:
        """Refuse what does not hold.

        Raises:
            ProgramError: it does not.
        """
        if not holds:
            raise ProgramError(f"{shown(self.title)[:80]}: {self.place}: {why}")

    def name(self, name: object) -> None:
        """Refuse what is no name."""
        if not is_name(name):
            self.need(False, f"'{shown(name)[:80]}' is not a name that may stand in a program")

    def expr(self, expr: Expr) -> int:
        """The nodes of an expression, looked at without recursion."""
        nodes = 0
        joints: dict[int, int] = {}
        waiting: list[tuple[Expr, int]] = [(expr, 1)]
        while waiting:
            e, depth = waiting.pop()
            nodes += 1
            self.need(depth <= DEPTH, f"an expression that is nested more than {DEPTH} deep")
            self.need(nodes <= NODES, f"an expression of more than {NODES} parts")
            inner: Iterable[Expr] = ()
            match e:
                case View():
                    self.name(e.name)
                    self.shape(e.shape, ELEMENTS)
                    self.numbers("strides and offset", *e.strides, e.offset)
                case Const():
                    # an infinity is what some models clamp to, or fill masks with
                    self.need(isinf(e.value) or abs(e.value) < REAL, f"a number ({e.value}) that no float32 holds")
                case Apply():
                    inner = e.args
                case Cat():
                    self.numbers("a join", e.axis, *e.sizes)
                    joints[e.axis] = joints.get(e.axis, 0) + max(len(e.parts) - 1, 0)
                    inner = e.parts
            waiting += ((part, depth + 1) for part in inner)
        boxes = 1
        for count in joints.values():
            boxes = min(boxes * (count + 1), BOXES + 1)
        self.need(boxes <= BOXES, f"joins that cut it into more than {BOXES} pieces")
        self.need(boxes * nodes <= EMITTED, f"{boxes} pieces of an expression of {nodes} parts")
        return nodes

    def shape(self, shape: Shape, most: int, least: int = 1) -> None:
        """Bound the axes, extents and elements of a shape."""
        self.need(len(shape) <= AXES, f"more than {AXES} axes")
        self.need(all(least <= extent <= INTEGER for extent in shape), "an empty axis, or an extent out of range")
        self.need(prod(shape) <= most, f"shape {list(shape)} has more than {most} elements")

    def numbers(self, what: str, *numbers: int) -> None:
        """Bound whole numbers."""
        self.need(all(0 <= number <= INTEGER for number in numbers), f"{what} below 0, or above {INTEGER}")
