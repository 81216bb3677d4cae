"""How large a program may be: far above what models are, and low enough that all that is made of it has an end.

Sizes are products of a few numbers of a file, so that a line of text could ask for more memory, code or time than there
is. `check` bounds every number, size and depth before anything is computed from them; it needs neither recursion nor
more than one look at each part of the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isinf, prod

from bossa.errors import ProgramError, shown
from bossa.ir.names import is_name, is_title, names_in
from bossa.ir.program import (
    Apply,
    Attention,
    Cat,
    Const,
    Embed,
    Expr,
    Linear,
    Loop,
    Op,
    Program,
    Reduce,
    Shape,
    View,
    expressions,
    outputs,
    weights_of,
)

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


def check(program: Program) -> None:
    """Refuse what is too large, and names that are none.

    Raises:
        ProgramError: the first of them.
    """
    _Limits(program).check()


class _Limits:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.place = "the program"
        self.work = 0

    def need(self, holds: bool, why: str) -> None:
        if not holds:
            raise ProgramError(f"{shown(self.program.name)[:80]}: {self.place}: {why}")

    def check(self) -> None:
        program = self.program
        self.need(is_title(program.name), "a program's name is one line of at most 255 letters that can be shown")
        for name in names_in(program):
            self.name(name)
        self.numbers("vocabulary and length", program.vocab_size, program.max_seq_length)
        self.need(program.vocab_size <= ELEMENTS, f"a vocabulary of {program.vocab_size}: at most {ELEMENTS} are known")
        for name, table in program.tables.items():
            self.place = f"table {name}"
            self.need(prod(table.shape[1:]) <= ELEMENTS, f"more than {ELEMENTS} numbers a position")
        for name, slot in program.slots.items():
            self.place = f"slot {name}"
            for shape in (slot.shape, *(source.shape for source in slot.sources)):
                self.shape(shape, SLOT_ELEMENTS, 0)
        self.place = "the program"
        bodies = [op.body if isinstance(op, Loop) else (op,) for op in program.body]
        self.need(sum(map(len, bodies)) + len(bodies) <= 2 * OPS, f"it has more than {OPS} ops")
        for op in program.body:
            self.op(op, 1)
        self.place = "the program"
        layers = sum(isinstance(inner, Attention) * _count(op) for op, inner in _all(program.body))
        self.need(layers <= LAYERS, f"it has more than {LAYERS} attention layers")
        self.need(self.work <= WORK, f"a row takes more than {WORK} steps of pointwise work")

    def name(self, name: object) -> None:
        if not is_name(name):
            self.need(False, f"'{shown(name)[:80]}' is not a name that may stand in a program")

    def op(self, op: Op, times: int) -> None:
        for value in outputs(op):
            self.place = f"%{value.name}"
            self.shape(value.shape, ELEMENTS)
        match op:
            case Loop():
                self.loop(op)
                return
            case Embed():
                self.work += times * op.out.size
            case Linear():
                self.numbers("parts", op.parts)
                groups = prod(op.x.shape[:-1])
                self.work += times * op.out.size * (op.x.shape[-1] if groups > 1 and op.x.shape else 1)
            case Reduce():
                self.numbers("axes", op.axes)
                self.shape(op.domain, ELEMENTS)
            case Attention():
                self.numbers("layer and window", op.layer, op.window)
                self.attention(op)
        domain = op.domain if isinstance(op, Reduce) else op.out.shape
        for expr in expressions(op):
            self.work += times * self.expr(expr) * prod(domain)

    def loop(self, op: Loop) -> None:
        self.place = "a loop"
        self.numbers("count and layers", op.count, op.layers)
        self.need(op.count <= ITERATIONS, f"{op.count} iterations, where {ITERATIONS} are the most")
        for carried in op.carried:
            self.shape(carried.inner.shape, ELEMENTS)
            self.work += op.count * carried.inner.size
        for inner in op.body:
            self.place = "a loop"
            self.need(not isinstance(inner, Loop), "a loop in a loop")
            self.op(inner, max(op.count, 1))
        self.place = "a loop"
        read = {name for inner in op.body for name in weights_of(inner)}
        self.need(op.count * len(read) <= SLOT_NUMBERS, f"{op.count} iterations of {len(read)} weights are too many")

    def attention(self, op: Attention) -> None:
        self.need(abs(op.scale) < REAL and abs(op.softcap) < REAL, "a scale or cap out of range")
        for view in (op.q, op.k, op.v):
            self.need(len(view.shape) == 2, f"%{view.name} is not read as [heads, features]")
        (groups, features), width = op.k.shape, -(-op.v.shape[1] // 16) * 16
        self.need(
            features + 2 * width <= QUERY_FLOATS, f"heads of {features} and {op.v.shape[1]} features are too wide"
        )
        self.need(groups * width <= STORED_VALUES, f"{groups} heads of {op.v.shape[1]} values a row are too many")

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
        self.need(len(shape) <= AXES, f"more than {AXES} axes")
        self.need(all(least <= extent <= INTEGER for extent in shape), "an empty axis, or an extent out of range")
        self.need(prod(shape) <= most, f"shape {list(shape)} has more than {most} elements")

    def numbers(self, what: str, *numbers: int) -> None:
        self.need(all(0 <= number <= INTEGER for number in numbers), f"{what} below 0, or above {INTEGER}")


def _all(ops: Iterable[Op]) -> Iterator[tuple[Op, Op]]:
    """Every op with the one of the program's own that it is or is in."""
    for op in ops:
        for inner in op.body if isinstance(op, Loop) else (op,):
            yield op, inner


def _count(op: Op) -> int:
    return op.count if isinstance(op, Loop) else 1
