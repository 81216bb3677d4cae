"""Identical layers rolled into one loop, so that the program and its compile time do not grow with the depth."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bossa.ir.program import Carried, Loop, Op, Program, RowOp, StatefulOp, expressions, weights_of
from bossa.ir.values import Value, View, views
from bossa.passes.rewrite import keep_used, straight_ops, with_weights

LONGEST_PERIOD = 8
"""Layers of one iteration at most (layers often alternate between two or a few kinds of attention)."""


def roll_layers(program: Program) -> Program:
    """Replace the longest run of like segments by a loop.

    Two segments are alike when their ops are, each reading the segment's own values, the same values from before the
    run, or the same values of the segment before. Weights may differ in name, not in shape, layout or type.
    """
    body = _Body(program)
    run = _best_run(body)
    if run is None:
        return program
    segments = [body.ops[run.start + i * run.period :][: run.period] for i in range(run.count)]
    carried: list[Carried] = []
    inner: dict[str, str] = {}
    for first, last_at in body.carried(run.start, run.period).items():
        value, result = body.ops[last_at].out, body.ops[last_at + (run.count - 1) * run.period].out
        init = body.ops[first].out.name
        inner[init] = f"{value.name}_in"
        carried.append(Carried(init, replace(value, name=inner[init]), value.name, result))

    used = [[weight for op in segment for weight in weights_of(op)] for segment in segments]
    formal: dict[str, str] = {}
    weights: list[tuple[str, tuple[str, ...]]] = []
    taken = set(program.slots)
    together = list(dict.fromkeys(zip(*used, strict=False)))
    if len({len(names) for names in used}) > 1 or len({actual[0] for actual in together}) < len(together):
        return program  # one weight in one layer, several in its place in another
    for actual in together:
        if len(set(actual)) > 1:
            name = _formal_name(actual)
            while name in taken:
                name += "'"
            taken.add(name)
            formal[actual[0]] = name
            weights.append((name, actual))

    def moved(view: View) -> View:
        return replace(view, name=inner.get(view.name, view.name)) if view.space == "value" else view

    looped = tuple(with_weights(op.map_operands(moved), lambda name: formal.get(name, name)) for op in segments[0])
    loop = Loop(run.count, run.layers, tuple(carried), tuple(weights), looped)
    rolled: tuple[Op, ...] = (*body.ops[: run.start], loop, *body.ops[run.start + run.count * run.period :])
    return keep_used(replace(program, body=rolled))


def _formal_name(actual: tuple[str, ...]) -> str:
    """One name for the weights of all iterations: the layer's number as ``*``, or as ``1+2*`` where it steps."""
    names = [name.split(".") for name in actual]
    if len({len(parts) for parts in names}) > 1:
        return f"{actual[0]}*"
    return ".".join(part[0] if len(set(part)) == 1 else _star(part) for part in zip(*names, strict=True))


def _star(parts: tuple[str, ...]) -> str:
    if not all(part.isdigit() for part in parts):
        return f"{parts[0]}*"
    step = int(parts[1]) - int(parts[0])
    return "*" if step == 1 else f"{parts[0]}+{step}*"


@dataclass(frozen=True)
class _Run:
    """`count` segments of `period` ops from `start` on that are the same but for their weights."""

    start: int
    period: int
    count: int
    layers: int  # ops that keep state in a segment

    @property
    def covered(self) -> int:
        return self.count * self.period


class _Body:
    """The ops of a program, with what comparing them takes."""

    def __init__(self, program: Program) -> None:
        self.ops = straight_ops(program)
        self.forms = [_form(program, op) for op in self.ops]
        at = {op.out.name: i for i, op in enumerate(self.ops)}
        self.reads = [[at[view.name] for view in _values(op)] for op in self.ops]  # where each operand was made
        self.stateful = [i for i, op in enumerate(self.ops) if isinstance(op, StatefulOp)]
        self.output = at[program.output]

    def repeats(self, start: int, period: int) -> int:
        """How many segments from `start` on are alike, at most; 1 where not even two are."""
        count = 1
        while start + (count + 1) * period <= len(self.ops) and self.alike(start, period, count):
            count += 1
        while count > 1 and not self.closed(start, period, count):
            count -= 1
        return count

    def alike(self, start: int, period: int, count: int) -> bool:
        """Whether the segment after `count` alike ones is like them too."""
        a_start = start + (count - 1) * period
        b_start = a_start + period
        shift = sum(a_start <= i < b_start for i in self.stateful)
        for a in range(a_start, b_start):
            b = a + period
            if self.forms[a] != self.forms[b] or _layer(self.ops[b]) - _layer(self.ops[a]) not in (0, shift):
                return False
            for from_a, from_b in zip(self.reads[a], self.reads[b], strict=True):
                if from_a >= a_start or from_b >= b_start:  # of the segment itself
                    good = from_b - from_a == period
                elif from_b >= a_start:  # of the segment before
                    good = from_b - from_a == period if count > 1 else from_a < start
                else:  # of before the run
                    good = from_a == from_b and from_a < start
                if not good:
                    return False
        return count > 1 or self.carries(start, period)

    def carried(self, start: int, period: int) -> dict[int, int]:
        """What the first segment reads of before it where the second reads of the first, and what that is then."""
        found: dict[int, int] = {}
        for a in range(start, start + period):
            for from_a, from_b in zip(self.reads[a], self.reads[a + period], strict=True):
                if start <= from_b < start + period and from_a < start:
                    found[from_a] = from_b
        return found

    def carries(self, start: int, period: int) -> bool:
        """Whether each carried value has one origin and one successor, and is read as carried everywhere."""
        found = self.carried(start, period)
        same_shape = all(self.ops[a].out.shape == self.ops[b].out.shape for a, b in found.items())
        for a in range(start, start + period):
            for from_a, from_b in zip(self.reads[a], self.reads[a + period], strict=True):
                if from_a in found and found[from_a] != from_b:
                    return False
        return same_shape and len(set(found.values())) == len(found)

    def closed(self, start: int, period: int, count: int) -> bool:
        """Whether what follows reads nothing of the run but what the last segment carries on."""
        end = start + count * period
        after = {made for reads in self.reads[end:] for made in reads} | {self.output}
        allowed = {made + (count - 1) * period for made in self.carried(start, period).values()}
        return {made for made in after if start <= made < end} <= allowed


def _best_run(body: _Body) -> _Run | None:
    stateful = body.stateful
    best: _Run | None = None
    for layers in range(1, min(LONGEST_PERIOD, len(stateful) // 2) + 1):
        period = stateful[layers] - stateful[0]
        for anchor in range(len(stateful) - layers):
            if stateful[anchor + layers] - stateful[anchor] != period:
                continue
            previous = stateful[anchor - 1] + 1 if anchor else 0
            for start in range(max(0, stateful[anchor] - period + 1, previous), stateful[anchor] + 1):
                run = _Run(start, period, body.repeats(start, period), layers)
                if run.count > 1 and (best is None or run.covered > best.covered):
                    best = run
            if best is not None and best.covered > len(body.ops) // 2:
                break
        if best is not None and best.layers == layers and best.count * layers >= len(stateful) - 2 * layers:
            break
    return best


def _form(program: Program, op: RowOp) -> RowOp:
    """The op without names: what two alike ops have in common."""

    def slot(name: str) -> str:
        s = program.slots[name]
        return f"{s.layout} {s.shape} {s.dtype} {s.interleave} {[x.transpose for x in s.sources]}"

    op = op.map_operands(lambda view: replace(view, name="") if view.space == "value" else view)
    op = replace(with_weights(op, slot), out=Value("", op.out.shape))
    return op.with_layer(0) if isinstance(op, StatefulOp) else op


def _layer(op: RowOp) -> int:
    return op.layer if isinstance(op, StatefulOp) else 0


def _values(op: RowOp) -> list[View]:
    return [view for expr in expressions(op) for view in views(expr) if view.space == "value"]
