"""What a step of a program costs: bytes read, multiply-adds and barriers, counted in its row program.

A step reads each weight once, whatever its rows, and of each sequence the keys and values that its rows see, or its
recurrent state. Counted are weights, keys and values, recurrent state, the arithmetic of linears, attention and
convolutions, and the barriers between sections. Left out are activations, which stay in caches, other writes, and the
arithmetic of norms and activation functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bossa.ir.cost import OpCost
from bossa.ir.program import Loop, Op, Program, RowOp, weights_of
from bossa.ir.slot import Slot
from bossa.targets.cpu.layout import FEWEST_FUSED_ROWS, Plan
from bossa.targets.cpu.plan import make_plan
from bossa.targets.cpu.sections import Repeat, Section, fusion_groups


@dataclass(frozen=True)
class Span:
    """Consecutive rows of one sequence in a step.

    Attributes:
        start: the position of the first.
        rows: how many.
        logits: of how many of them the logits are wanted.
    """

    start: int
    rows: int
    logits: int = 1


@dataclass(frozen=True)
class Cost:
    """What a step, or several, must do at least.

    Attributes:
        weight_bytes: of weights read.
        kv_bytes: of keys and values read, and of recurrent state read and written.
        operations: by arithmetic (``fp32``, ``int16``, ``int8``); a multiply-add is two.
        barriers: at which all threads meet.
    """

    weight_bytes: int = 0
    kv_bytes: int = 0
    operations: Mapping[str, int] = field(default_factory=dict)
    barriers: int = 0

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes

    def __add__(self, other: Cost) -> Cost:
        kinds = dict.fromkeys([*self.operations, *other.operations])
        return Cost(
            self.weight_bytes + other.weight_bytes,
            self.kv_bytes + other.kv_bytes,
            {kind: self.operations.get(kind, 0) + other.operations.get(kind, 0) for kind in kinds},
            self.barriers + other.barriers,
        )

    def read_seconds(self, bytes_per_s: float) -> float:
        """The time to read what is read."""
        return self.bytes / bytes_per_s

    def arithmetic_seconds(self, rates: Mapping[str, float]) -> float:
        """The time to compute what is computed, one kind of arithmetic after the other."""
        return sum(count / rates[kind] for kind, count in self.operations.items())


@dataclass(frozen=True)
class Barriers:
    """How many a step has.

    Attributes:
        before: up to where rows are selected: all of a step whose logits nobody wants.
        fused: the same where blocks of rows go through groups of fused sections.
        after: from there on.
    """

    before: int = 0
    fused: int = 0
    after: int = 0


class StepModel:
    """The cost of any step of one program.

    Args:
        program: the row program.
        page_bytes, page_size: of a KV page, all layers together, as the manifest has them.
        barriers: of a step.
        threads: that share a step, on which it depends whether sections are fused.
    """

    def __init__(
        self,
        program: Program,
        page_bytes: int,
        page_size: int,
        barriers: Barriers = Barriers(),
        threads: int = 1,
    ) -> None:
        self.ops: list[tuple[OpCost, bool]] = []  # and whether it runs on the selected rows
        self.flat_bytes = 0
        self.selected_flat_bytes = 0
        self.barriers = barriers
        self.threads = threads
        selected = False
        for op, slots in _unrolled(program.body, program.slots):
            selected = selected or op.selects
            self.ops.append((op.cost(slots.__getitem__), selected))
            flat = sum(slots[name].nbytes for name in weights_of(op) if slots[name].layout == "flat")
            if selected:
                self.selected_flat_bytes += flat
            else:
                self.flat_bytes += flat
        kept = sum(cost.kept for cost, _ in self.ops)
        self.bytes_of_kept = page_bytes / page_size / kept if kept else 0.0

    @classmethod
    def of_plan(cls, plan: Plan, page_bytes: int, page_size: int, threads: int = 1) -> StepModel:
        return cls(plan.program, page_bytes, page_size, count_barriers(plan), threads)

    @classmethod
    def of_program(cls, program: Program, page_bytes: int, page_size: int, threads: int = 1) -> StepModel:
        return cls.of_plan(make_plan(program), page_bytes, page_size, threads)

    @property
    def kv_bytes_per_position(self) -> float:
        return self.bytes_of_kept * sum(cost.kept for cost, _ in self.ops)

    def cost(self, spans: Sequence[Span]) -> Cost:
        """The cost of one step over these rows."""
        rows = sum(span.rows for span in spans)
        logits = sum(span.logits for span in spans)
        weights = self.flat_bytes + (self.selected_flat_bytes if logits else 0)
        operations: dict[str, int] = {}
        kv = 0.0
        for op, selected in self.ops:
            count = logits if selected else rows
            weights += op.row_bytes * count + (op.step_bytes if count else 0)
            if op.operations and count:
                operations[op.arithmetic] = operations.get(op.arithmetic, 0) + op.operations * count
            kv += op.sequence_bytes * len(spans)
            if not op.kept:
                continue
            for span in spans:
                last = span.start + span.rows - 1
                first = span.start + 1 - op.sees(span.start)
                kv += op.kept * self.bytes_of_kept * (last + 1 - first)
                seen = sum(op.sees(position) for position in range(span.start, last + 1))
                operations["fp32"] = operations.get("fp32", 0) + op.seen_operations * seen
        fuses = rows >= FEWEST_FUSED_ROWS * self.threads
        barriers = self.barriers.fused if fuses else self.barriers.before
        return Cost(weights, round(kv), operations, barriers + (self.barriers.after if logits else 0))

    def prefill(self, length: int, max_rows: int) -> Cost:
        """The cost of a prompt in steps of ``max_rows`` rows at most, with the logits of its last token."""
        total = Cost()
        for start in range(0, length, max_rows):
            rows = min(max_rows, length - start)
            total += self.cost([Span(start, rows, 1 if start + rows == length else 0)])
        return total

    def decode(self, batch: int, context: int) -> Cost:
        """The cost of a token each for ``batch`` sequences of ``context`` tokens."""
        return self.cost([Span(context, 1)] * batch)


def _unrolled(ops: Iterable[Op], slots: Mapping[str, Slot]) -> Iterator[tuple[RowOp, Mapping[str, Slot]]]:
    """Every op as often as it runs, with the slots that its weights' names stand for then."""
    for op in ops:
        if not isinstance(op, Loop):
            yield op, slots
            continue
        for i in range(op.count):
            held = {name: slots[chosen[i]] for name, chosen in op.weights}
            yield from _unrolled(op.body, {**slots, **held})


def count_barriers(plan: Plan) -> Barriers:
    """Barriers of a step of this plan's program."""
    before = fused = after = 0
    for group in fusion_groups(plan.sections, plan.program.output):
        if any(_is_selected(section) for section in group):
            after += 1
        else:
            before += sum(_barriers(plan, section, fuses=False) for section in group)
            fused += max(_barriers(plan, section, fuses=True) for section in group)
    return Barriers(before, fused, after)


def _is_selected(section: Section) -> bool:
    return not isinstance(section, Repeat) and section.selected


def _barriers(plan: Plan, section: Section, *, fuses: bool) -> int:
    """One after each section or group; in a loop, one more for each carried value that is copied into place."""
    if not isinstance(section, Repeat):
        return 1
    places = plan.places
    carried = section.loop.carried
    first = sum(places[item.init] != places[item.inner.name] for item in carried)
    again = sum(places[item.step] != places[item.inner.name] for item in carried)
    inner = len(list(fusion_groups(section.sections, plan.program.output))) if fuses else len(section.sections)
    return first + section.loop.count * (again + inner)
