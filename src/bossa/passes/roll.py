"""Identical layers rolled into one loop, so that the program and its compile time do not grow with the depth."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bossa.passes.rewrite import keep_used, map_operands, with_out, with_weights
from bossa.program.ir import Attention, Carried, Loop, Op, Program, Value, expressions, outputs, reads, views, weights_of

LONGEST_PERIOD = 8
"""Layers of one iteration at most (layers often alternate between two or a few kinds of attention)."""


@dataclass(frozen=True)
class _Run:
    """`count` segments of `period` ops from `start` on that are the same but for their weights."""

    start: int
    period: int
    count: int
    layers: int  # attention layers a segment


def roll_layers(program: Program) -> Program:
    """Replace the longest run of like segments by a loop.

    Two segments are alike when their ops are, each reading the segment's own values, the same values from before the
    run, or the same values of the segment before. Weights may differ in name, not in shape, layout or type.
    """
    run = _best_run(program)
    if run is None:
        return program
    body = list(program.body)
    first = body[run.start : run.start + run.period]
    segments = [body[run.start + i * run.period :][: run.period] for i in range(run.count)]
    names = [[op.out.name for op in segment if not isinstance(op, Loop)] for segment in segments]

    # A value of the segment before: what it was in the first iteration, and which op of a segment makes it.
    carried: list[Carried] = []
    inner: dict[str, str] = {}
    for a, b in zip(segments[0], segments[1], strict=True):
        for read_a, read_b in zip(_reads(a), _reads(b), strict=True):
            if read_b in names[0] and read_a not in inner:
                at = names[0].index(read_b)
                value = first[at].out  # type: ignore[union-attr]
                inner[read_a] = f"{value.name}_in"
                last = segments[-1][at].out  # type: ignore[union-attr]
                carried.append(Carried(read_a, replace(value, name=inner[read_a]), value.name, last))

    weights: list[tuple[str, tuple[str, ...]]] = []
    formal: dict[str, str] = {}
    per_segment = [[w for op in segment for w in weights_of(op)] for segment in segments]
    for position, weight in enumerate(per_segment[0]):
        actual = tuple(segment[position] for segment in per_segment)
        if len(set(actual)) > 1 and weight not in formal:
            formal[weight] = _formal_name(actual)
            weights.append((formal[weight], actual))

    looped: list[Op] = []
    for op in first:
        op = map_operands(op, lambda v: replace(v, name=inner.get(v.name, v.name)) if v.space == "value" else v)
        looped.append(with_weights(op, lambda name: formal.get(name, name)))
    loop = Loop(run.count, run.layers, tuple(carried), tuple(weights), tuple(looped))
    after = body[run.start + run.count * run.period :]
    return keep_used(replace(program, body=(*body[: run.start], loop, *after)))


def _formal_name(actual: tuple[str, ...]) -> str:
    """One name for the weights of all iterations: the layer's number as ``*``."""
    names = [name.split(".") for name in actual]
    if len({len(parts) for parts in names}) > 1:
        return f"{actual[0]}*"
    return ".".join(part[0] if len(set(part)) == 1 else _star(part) for part in zip(*names, strict=True))


def _star(parts: tuple[str, ...]) -> str:
    if all(part.isdigit() for part in parts):
        return "*"
    return parts[0] + "*"


def _reads(op: Op) -> list[str]:
    return [view.name for expr in expressions(op) for view in views(expr) if view.space == "value"]


def _best_run(program: Program) -> _Run | None:
    body = program.body
    attentions = [i for i, op in enumerate(body) if isinstance(op, Attention)]
    best: _Run | None = None
    for layers in range(1, min(LONGEST_PERIOD, len(attentions) // 2) + 1):
        period = attentions[layers] - attentions[0]
        for anchor in range(len(attentions) - layers):
            if attentions[anchor + layers] - attentions[anchor] != period:
                continue
            previous = attentions[anchor - 1] + 1 if anchor else 0
            for start in range(max(0, attentions[anchor] - period + 1, previous), attentions[anchor] + 1):
                count = _repeats(program, start, period)
                if count < 2:
                    continue
                run = _Run(start, period, count, layers)
                if best is None or count * period > best.count * best.period:
                    best = run
            if best is not None and best.count * best.period > len(body) // 2:
                break
        if best is not None and best.layers == layers and best.count * best.layers >= len(attentions) - 2 * layers:
            break
    return best


def _repeats(program: Program, start: int, period: int) -> int:
    """How many segments from `start` on are alike, at most; 1 where not even two are."""
    body = program.body
    count = 1
    while start + (count + 1) * period <= len(body) and _alike(program, start, period, count):
        count += 1
    while count > 1 and not _closed(program, start, period, count):
        count -= 1
    return count


def _alike(program: Program, start: int, period: int, count: int) -> bool:
    """Whether the segment after `count` alike ones is like them too."""
    body = program.body
    a = body[start + (count - 1) * period :][:period]
    b = body[start + count * period :][:period]
    if any(isinstance(op, Loop) for op in (*a, *b)):
        return False
    index_a = {op.out.name: i for i, op in enumerate(a)}  # type: ignore[union-attr]
    index_b = {op.out.name: i for i, op in enumerate(b)}  # type: ignore[union-attr]
    before = {value.name for op in body[:start] for value in outputs(op)}
    shift = sum(isinstance(op, Attention) for op in a)
    earlier: dict[str, str] = {}
    for op_a, op_b in zip(a, b, strict=True):
        if _shape_of(program, op_a, 0) != _shape_of(program, op_b, shift):
            return False
        for read_a, read_b in zip(_reads(op_a), _reads(op_b), strict=True):
            if read_a in index_a or read_b in index_b:
                if index_a.get(read_a) != index_b.get(read_b):
                    return False
            elif read_b in index_a:  # of the segment before
                if count > 1:
                    previous = body[start + (count - 2) * period :][:period]
                    if read_a != previous[index_a[read_b]].out.name:  # type: ignore[union-attr]
                        return False
                elif earlier.setdefault(read_a, read_b) != read_b or read_a not in before:
                    return False
                elif [o.out.shape for o in a if o.out.name == read_b] != _shape_before(body[:start], read_a):  # type: ignore[union-attr]
                    return False
            elif read_a != read_b or read_a not in before:
                return False
    if count == 1:  # a carried value must be read as carried everywhere
        fixed = {r for op_b in b for r in _reads(op_b) if r in before}
        if fixed & set(earlier):
            return False
    return True


def _shape_before(ops: tuple[Op, ...], name: str) -> list[tuple[int, ...]]:
    return [value.shape for op in ops for value in outputs(op) if value.name == name]


def _closed(program: Program, start: int, period: int, count: int) -> bool:
    """Whether what follows reads nothing of the run but what the last segment carries on."""
    body = program.body
    end = start + count * period
    inside = {value.name for op in body[start:end] for value in outputs(op)}
    last = body[end - period : end]
    after = {name for op in body[end:] for name in reads(op)} | {program.output}
    carried_at = set()
    first_names = [op.out.name for op in body[start : start + period]]  # type: ignore[union-attr]
    for op in body[start + period : start + 2 * period]:
        carried_at |= {first_names.index(name) for name in _reads(op) if name in first_names}
    allowed = {last[at].out.name for at in carried_at}  # type: ignore[union-attr]
    return (after & inside) <= allowed


def _shape_of(program: Program, op: Op, shift: int) -> object:
    """The op without names: what two alike ops have in common."""

    def slot(name: str) -> str:
        s = program.slots[name]
        return f"{s.layout} {s.shape} {s.dtype} {s.interleave} {[x.transpose for x in s.sources]}"

    assert not isinstance(op, Loop)
    op = map_operands(op, lambda view: replace(view, name="") if view.space == "value" else view)
    op = with_out(with_weights(op, slot), Value("", op.out.shape))
    return replace(op, layer=op.layer - shift) if isinstance(op, Attention) else op
