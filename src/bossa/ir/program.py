"""The row program: what a decoder-only model does to one packed row, and the few ops that look at others.

An op reads its own row, except those that keep state of the sequence (``op.StatefulOp``): attention, or a convolution
along the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bossa.ir.op import RowOp, StatefulOp
from bossa.ir.slot import Slot
from bossa.ir.values import Expr, Value, views


@dataclass(frozen=True)
class Carried:
    """A value that goes round a loop: `inner` is `init` in the first iteration and the last `step` after it."""

    init: str
    inner: Value
    step: str
    result: Value


@dataclass(frozen=True)
class Loop:
    """`count` runs of `body`. Weights named in the body are formal: `weights` lists the slot for each iteration.

    Ops of the body that keep state count from their `layer`, `layers` further each iteration.
    """

    count: int
    layers: int
    carried: tuple[Carried, ...]
    weights: tuple[tuple[str, tuple[str, ...]], ...]
    body: tuple[Op, ...]


Op = RowOp | Loop


@dataclass(frozen=True)
class Program:
    """A whole model: its ops in order, the slots it reads, its position tables and where the logits are.

    Attributes:
        tables: arrays ``[max_seq_length, D...]`` by name; int32 tables index embeddings, float32 ones are operands.
            A table of one row is a constant, the same at every position.
        output: the value ``[V]`` that holds the logits.
    """

    name: str
    vocab_size: int
    max_seq_length: int
    body: tuple[Op, ...]
    output: str
    slots: dict[str, Slot] = field(default_factory=dict)
    tables: dict[str, NDArray[np.float32] | NDArray[np.int32]] = field(default_factory=dict)


def expressions(op: Op) -> tuple[Expr, ...]:
    """Every expression of an op, single views included; none of a loop."""
    return () if isinstance(op, Loop) else op.expressions()


def reads(op: Op) -> set[str]:
    """Names of the values that an op reads (for a loop: from outside it)."""
    if isinstance(op, Loop):
        inside = {carried.inner.name for carried in op.carried} | {out.name for o in op.body for out in outputs(o)}
        body = {name for o in op.body for name in reads(o)}
        return {carried.init for carried in op.carried} | (body - inside)
    return {view.name for expr in op.expressions() for view in views(expr) if view.space == "value"}


def outputs(op: Op) -> tuple[Value, ...]:
    """The values that an op defines for the ops after it."""
    return tuple(carried.result for carried in op.carried) if isinstance(op, Loop) else (op.out,)


def weights_of(op: Op) -> tuple[str, ...]:
    """Names of the weights that an op reads, in a fixed order without repeats (for a loop: the formal names)."""
    if isinstance(op, Loop):
        names = [name for inner in op.body for name in weights_of(inner)]
    else:
        looks = [view.name for expr in op.expressions() for view in views(expr) if view.space == "weight"]
        names = [*op.slot_names(), *looks]
    return tuple(dict.fromkeys(names))


def tables_of(op: Op) -> tuple[str, ...]:
    """Names of the position tables that an op reads."""
    if isinstance(op, Loop):
        names = [name for inner in op.body for name in tables_of(inner)]
    else:
        looks = [view.name for expr in op.expressions() for view in views(expr) if view.space == "table"]
        names = [*op.table_names(), *looks]
    return tuple(dict.fromkeys(names))


def row_ops(program: Program) -> tuple[RowOp, ...]:
    """The ops of a program with the bodies of loops in their places, once each."""
    bodies = (op.body if isinstance(op, Loop) else (op,) for op in program.body)
    return tuple(op for body in bodies for op in body if isinstance(op, RowOp))


def stateful_ops(program: Program) -> Iterator[StatefulOp]:
    """The ops that keep state, those in loops once for each iteration, with the layers that they have then."""
    for op in program.body:
        count, shift, body = (op.count, op.layers, op.body) if isinstance(op, Loop) else (1, 0, (op,))
        for i in range(count):
            for inner in body:
                if isinstance(inner, StatefulOp):
                    yield inner.with_layer(inner.layer + i * shift)


__all__ = [
    "Carried",
    "Loop",
    "Op",
    "Program",
    "RowOp",
    "StatefulOp",
    "expressions",
    "outputs",
    "reads",
    "row_ops",
    "stateful_ops",
    "tables_of",
    "weights_of",
]
