"""One block of activation memory for a step: which values live in it, where, and which take another's place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from bossa.ir.program import Carried, Loop, Op, Program, RowOp, outputs
from bossa.ir.values import Apply, Cat, Expr, Value, views
from bossa.targets.cpu.emit.kinds import emitter_of
from bossa.targets.cpu.layout import Place
from bossa.targets.cpu.sections import Repeat, Section, Store, fusion_groups, ops_in_order, ops_of

UNIT = 16
"""Floats that a row of a value is rounded up to: one register of lanes."""
LOCAL_FLOATS = 1 << 15
"""Floats that the values which live inside one section may take on the stack together; the others go to the arena."""


@dataclass
class _Buffer:
    """Memory that values share one after the other, in use from section `first` to section `last`."""

    size: int
    first: int
    last: int
    offset: int = -1
    round: Carried | None = None  # what it carries round a loop


def row_floats(value: Value) -> int:
    """Floats of one row of a value."""
    return -(-max(value.size, 1) // UNIT) * UNIT


def place_values(program: Program, sections: tuple[Section, ...]) -> tuple[dict[str, Place], int]:
    """Place every value that outlives its section.

    Values whose lifetimes do not meet share memory: each takes the lowest gap that is free while it lives (first fit,
    in order of birth). A result takes the place of an operand that ends with it and is read element by element. Where
    workers are in different sections of one group, each with rows of its own, values of them share memory only if
    these rows lie in the same places.

    Returns:
        The places by value name, and the arena's floats for one row. Values without a place live inside one section, on
        its stack; the logits are the caller's.
    """
    lives = _Lifetimes(sections, program.output)
    arena = _Arena(program, lives)
    for op in ops_in_order(sections):
        arena.assign(op)
    buffers = {id(buffer): buffer for buffer in arena.buffers.values()}
    placed: list[_Buffer] = []
    for buffer in sorted(buffers.values(), key=lambda b: (b.first, -b.size)):
        buffer.offset = 0
        placed = [other for other in placed if not lives.over(other, buffer)]
        while other := next((other for other in placed if lives.clash(buffer, other)), None):
            buffer.offset = other.offset + other.size
        placed.append(buffer)
    total = max((buffer.offset + buffer.size for buffer in buffers.values()), default=0)
    return {name: Place(buffer.offset, buffer.size) for name, buffer in arena.buffers.items()}, total


class _Lifetimes:
    """When each value is made and last read, as numbers of sections, loop bodies counted once.

    A value from before a loop that is read in it lives until the loop has ended, and so does what goes round it.
    """

    def __init__(self, sections: tuple[Section, ...], output: str) -> None:
        self.output = output
        self.made: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.readers: Counter[tuple[int, str]] = Counter()
        self.inits: dict[str, int] = {}  # what a loop starts from, and where that begins
        self.group: dict[int, int] = {}  # the first section of each section's group
        self._number(sections, 0)

    def clash(self, one: _Buffer, other: _Buffer) -> bool:
        """Whether placed buffers overlap while both are in use."""
        if one.offset >= other.offset + other.size or other.offset >= one.offset + one.size:
            return False
        if other.first <= one.last and one.first <= other.last:
            return True
        if (one.offset, one.size) == (other.offset, other.size):
            return False
        return self._begin(other.first) <= self._begin(one.last) and self._begin(one.first) <= self._begin(other.last)

    def over(self, one: _Buffer, later: _Buffer) -> bool:
        """Whether a buffer can clash neither with one that begins later nor with any that begins after that."""
        return one.last < self._begin(later.first) and self._begin(one.last) < self._begin(later.first)

    def _begin(self, section: int) -> int:
        """The first section of the group that a section is in."""
        return self.group.get(section, section)

    def _number(self, sections: tuple[Section, ...], at: int) -> int:
        for group in fusion_groups(sections, self.output):
            begin = at
            for section in group:
                if isinstance(section, Repeat):
                    at = self._loop(section, at)
                    continue
                self.group[at] = begin
                for op in ops_of(section):
                    for name in reads(op):
                        self.last[name] = at
                        self.readers[at, name] += 1
                    if not isinstance(op, Store):
                        self.made.update({value.name: at for value in outputs(op)})
                at += 1
        return at

    def _loop(self, section: Repeat, first: int) -> int:
        for carried in section.loop.carried:
            self.inits[carried.init] = first
            self.last.setdefault(carried.init, first - 1)
            self.made[carried.inner.name] = first
        end = self._number(section.sections, first)
        for carried in section.loop.carried:
            self.last[carried.step] = end  # by the copy that may end an iteration
            self.made[carried.result.name] = end
        for name, last in self.last.items():
            if last >= first and self.made.get(name, first) < first:
                self.last[name] = end
        return end + 1


class _Arena:
    """Buffers for the values of a program, in the order of its ops."""

    def __init__(self, program: Program, lives: _Lifetimes) -> None:
        self.program = program
        self.lives = lives
        self.buffers: dict[str, _Buffer] = {}
        self.sizes: dict[str, int] = {}
        self.local: Counter[int] = Counter()  # floats on the stack of each section

    def assign(self, op: Op) -> None:
        """Find a buffer for what the op makes."""
        if isinstance(op, Loop):
            for carried in op.carried:
                self._carry(carried)
            return
        name = op.out.name
        self.sizes[name] = op.out.size
        made, last = self.lives.made[name], self.lives.last.get(name, -1)
        if name == self.program.output:
            return
        inside = last <= made and name not in self.lives.inits and not emitter_of(op).single
        if inside and self.local[made] + row_floats(op.out) <= LOCAL_FLOATS:
            self.local[made] += row_floats(op.out)
            return
        source = self._operand_to_replace(op, made)
        if source is None:
            self.buffers[name] = _Buffer(row_floats(op.out), made, max(last, made))
        else:
            self.buffers[name] = source
            source.last = max(source.last, last)

    def _carry(self, carried: Carried) -> None:
        """A loop's value goes round in the buffer of what it starts from, unless that is needed again."""
        inner = carried.inner.name
        self.sizes[inner] = self.sizes[carried.result.name] = carried.inner.size
        first, end = self.lives.made[inner], self.lives.made[carried.result.name]
        buffer = self.buffers[carried.init]
        if self.lives.last[carried.init] >= first or buffer.round is not None:
            buffer = _Buffer(row_floats(carried.inner), first, end)
        buffer.round = carried
        buffer.last = max(buffer.last, end, self.lives.last.get(carried.result.name, end))
        self.buffers[inner] = self.buffers[carried.result.name] = buffer

    def _operand_to_replace(self, op: RowOp, at: int) -> _Buffer | None:
        """The buffer of an operand that nothing needs after this op, which reads it only element by element."""
        emitter = emitter_of(op)
        expr = emitter.overwrites(op)
        if expr is None or _joins(expr):
            return None
        elsewhere = emitter.reads_beside(op)
        looks = [view for view in views(expr) if view.space == "value"]
        for name in dict.fromkeys(view.name for view in looks):
            buffer = self.buffers.get(name)
            if buffer is None or self.lives.last[name] != at or self.lives.readers[at, name] != 1:
                continue
            if buffer.round is None and (buffer.last > at or at < self.lives.inits.get(name, 0)):
                continue
            if buffer.round is not None and self._goes_elsewhere(op.out.name, buffer.round):
                continue
            whole = all(view.identity_of(op.out.size) for view in looks if view.name == name)
            if whole and self.sizes[name] == op.out.size and name not in elsewhere:
                return buffer
        return None

    def _goes_elsewhere(self, name: str, carried: Carried) -> bool:
        """Whether a value ends an iteration as something else than what goes round in this buffer."""
        others = [c for op in self.program.body if isinstance(op, Loop) for c in op.carried if c.step == name]
        return bool(others) and carried not in others


def _joins(expr: Expr) -> bool:
    match expr:
        case Cat():
            return True
        case Apply():
            return any(_joins(arg) for arg in expr.args)
        case _:
            return False


def reads(op: RowOp | Store) -> set[str]:
    """Values that an op of a section reads; what a store ahead of it has put into state, it has no need of."""
    looks = op.views if isinstance(op, Store) else [view for expr in op.expressions() for view in views(expr)]
    stored = set() if isinstance(op, Store) else set(emitter_of(op).stored(op))
    return {view.name for view in looks if view.space == "value" and view not in stored}
