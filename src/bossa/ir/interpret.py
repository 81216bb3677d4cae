"""The oracle: a row program run in NumPy, one plain step an op, over whole sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bossa.ir.program import Loop, Op, Program
from bossa.ir.rows import Array, Rows


def interpret(
    program: Program,
    weights: Mapping[str, Array],
    sequences: Sequence[Sequence[int]],
    *,
    rows: Sequence[int] | None = None,
    dtype: type[np.floating[Any]] = np.float32,
    pairs: Mapping[str, tuple[Array, Array]] | None = None,
) -> Array:
    """The logits ``[n, V]`` of packed sequences, each from its first token on.

    Args:
        weights: by slot name, in the slot's logical shape (``[N, K]``, ``[V, D]`` or the tensor's own), not packed.
        sequences: token ids, at most ``max_seq_length`` each; their rows are packed one sequence after the other.
        rows: the packed rows whose logits are wanted; all by default.
        dtype: what to compute in.
        pairs: of the adapter of all rows, where they have one: by slot name, ``[R, K]`` and ``[N, R]``.
    """
    lengths = [len(sequence) for sequence in sequences]
    total = sum(lengths)
    step = Rows(
        tables=program.tables,
        weights={name: np.asarray(weight, dtype) for name, weight in weights.items()},
        tokens=np.concatenate([np.asarray(s, np.int64) for s in sequences]),
        positions=np.concatenate([np.arange(n) for n in lengths]),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        selected=np.arange(total) if rows is None else np.asarray(rows, np.int64),
        dtype=dtype,
        pairs={name: (np.asarray(down, dtype), np.asarray(up, dtype)) for name, (down, up) in (pairs or {}).items()},
    )
    for op in program.body:
        _run(step, op)
    return step.values[program.output].reshape(-1, program.vocab_size)


def _run(step: Rows, op: Op) -> None:
    if isinstance(op, Loop):
        _loop(step, op)
    else:
        step.values[op.out.name] = op.run(step)


def _loop(step: Rows, op: Loop) -> None:
    for carried in op.carried:
        step.values[carried.inner.name] = step.values[carried.init]
    for i in range(op.count):
        for formal, actual in op.weights:
            step.weights[formal] = step.weights[actual[i]]
            step.pairs.pop(formal, None)
            if actual[i] in step.pairs:
                step.pairs[formal] = step.pairs[actual[i]]
        for inner in op.body:
            _run(step, inner)
        results = [step.values[carried.step] for carried in op.carried]
        for carried, result in zip(op.carried, results, strict=True):
            step.values[carried.inner.name] = result
    for carried in op.carried:
        step.values[carried.result.name] = step.values[carried.inner.name]
