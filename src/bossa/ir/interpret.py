"""The oracle: a row program run in NumPy, one plain step an op, over whole sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from bossa.formats.geometry import PANEL
from bossa.ir.functions import FUNCTIONS
from bossa.ir.program import (
    Apply,
    Attention,
    Cat,
    Const,
    Embed,
    Expr,
    Linear,
    Loop,
    Map,
    Op,
    Program,
    Reduce,
    Select,
    Shape,
    View,
)

Array = NDArray[Any]

_REDUCTIONS: dict[str, Callable[..., Array]] = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}


def interpret(
    program: Program,
    weights: Mapping[str, Array],
    sequences: Sequence[Sequence[int]],
    *,
    rows: Sequence[int] | None = None,
    dtype: type[np.floating[Any]] = np.float32,
) -> Array:
    """The logits ``[n, V]`` of packed sequences, each from its first token on.

    Args:
        weights: by slot name, in the slot's logical shape (``[N, K]``, ``[V, D]`` or the tensor's own), not packed.
        sequences: token ids, at most ``max_seq_length`` each; their rows are packed one sequence after the other.
        rows: the packed rows whose logits are wanted; all by default.
        dtype: what to compute in.
    """
    lengths = [len(sequence) for sequence in sequences]
    total = sum(lengths)
    run = _Run(
        program=program,
        weights={name: np.asarray(weight, dtype) for name, weight in weights.items()},
        tokens=np.concatenate([np.asarray(s, np.int64) for s in sequences]),
        positions=np.concatenate([np.arange(n) for n in lengths]),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        selected=np.arange(total) if rows is None else np.asarray(rows, np.int64),
        dtype=dtype,
    )
    for op in program.body:
        run.execute(op)
    return run.values[program.output].reshape(-1, program.vocab_size)


class _Run:
    def __init__(
        self,
        program: Program,
        weights: dict[str, Array],
        tokens: Array,
        positions: Array,
        starts: Array,
        selected: Array,
        dtype: type[np.floating[Any]],
    ) -> None:
        self.program = program
        self.weights = weights
        self.tokens = tokens  # [T]
        self.positions = positions  # [T]
        self.starts = starts  # [S + 1]
        self.selected = selected  # [n]
        self.dtype = dtype
        self.values: dict[str, Array] = {}  # [T, D...] or, after the selection, [n, D...]
        self.slots = dict(program.slots)
        self.row_positions = positions

    def execute(self, op: Op) -> None:
        match op:
            case Embed():
                self.values[op.out.name] = self.weights[op.weight][self.index(op)].reshape(-1, *op.out.shape)
            case Linear():
                self.values[op.out.name] = self.linear(op)
            case Map():
                self.values[op.out.name] = self.evaluate(op.expr, op.out.shape)
            case Reduce():
                x = self.evaluate(op.expr, op.domain)
                axes = tuple(range(x.ndim - op.axes, x.ndim))
                self.values[op.out.name] = _REDUCTIONS[op.kind](x, axis=axes).astype(self.dtype)
            case Attention():
                self.values[op.out.name] = self.attention(op)
            case Select():
                self.values[op.out.name] = self.look(op.x)[self.selected].reshape(-1, *op.out.shape)
                self.row_positions = self.positions[self.selected]
            case Loop():
                self.loop(op)

    def index(self, op: Embed) -> Array:
        """Which row of its weight an embedding takes for each packed row."""
        if op.index == "tokens":
            return self.tokens
        return np.asarray(self.program.tables[op.index].reshape(-1))[self.row_positions]

    def loop(self, op: Loop) -> None:
        for carried in op.carried:
            self.values[carried.inner.name] = self.values[carried.init]
        for i in range(op.count):
            for formal, actual in op.weights:
                self.weights[formal] = self.weights[actual[i]]
                self.slots[formal] = self.slots[actual[i]]
            for inner in op.body:
                moved = replace(inner, layer=inner.layer + i * op.layers) if isinstance(inner, Attention) else inner
                self.execute(moved)
            steps = [self.values[carried.step] for carried in op.carried]
            for carried, step in zip(op.carried, steps, strict=True):
                self.values[carried.inner.name] = step
        for carried in op.carried:
            self.values[carried.result.name] = self.values[carried.inner.name]

    def look(self, view: View) -> Array:
        """The operand as ``[T, shape...]``."""
        if view.space == "weight":
            base = self.weights[view.name].reshape(1, -1)
        elif view.space == "table":
            table = self.program.tables[view.name]
            base = np.asarray(table, self.dtype).reshape(len(table), -1)
            if len(table) > 1:
                base = base[self.row_positions]
        else:
            base = self.values[view.name]
            base = base.reshape(len(base), -1)
        base = np.ascontiguousarray(base)
        item = base.itemsize
        strides = (base.strides[0], *(stride * item for stride in view.strides))
        return as_strided(base[:, view.offset :], (len(base), *view.shape), strides, writeable=False)

    def evaluate(self, expr: Expr, shape: Shape, accumulators: Sequence[Array] = ()) -> Array:
        """The expression over ``[T, shape...]``."""
        match expr:
            case Const():
                out = np.full((1,) * (len(shape) + 1), expr.value, self.dtype)
            case View(space="acc"):
                out = accumulators[int(expr.name)].reshape(-1, *shape)
            case View():
                out = self.look(expr)
            case Apply():
                args = [self.evaluate(arg, shape, accumulators) for arg in expr.args]
                with np.errstate(all="ignore"):
                    out = FUNCTIONS[expr.function].numpy(*args).astype(self.dtype)
            case Cat():
                parts = [
                    self.evaluate(part, (*shape[: expr.axis], size, *shape[expr.axis + 1 :]))
                    for part, size in zip(expr.parts, expr.sizes, strict=True)
                ]
                rows = max(len(part) for part in parts)
                full = [
                    np.broadcast_to(part, (rows, *shape[: expr.axis], size, *shape[expr.axis + 1 :]))
                    for part, size in zip(parts, expr.sizes, strict=True)
                ]
                out = np.concatenate(full, axis=expr.axis + 1)
        rows = len(self.row_positions) if len(out) == 1 else len(out)
        return np.broadcast_to(out, (rows, *shape))

    def linear(self, op: Linear) -> Array:
        x = self.look(op.x)  # [T, ..., K]
        y = x @ self.weights[op.weight].T
        if op.bias is not None:
            y = y + self.weights[op.bias].reshape(-1)
        if op.epilogue is None:
            return y.reshape(-1, *op.out.shape)
        if op.parts == 1:
            return self.evaluate(op.epilogue, op.out.shape, [y])
        panels = y.reshape(*y.shape[:-1], -1, op.parts, PANEL)
        accumulators = [panels[..., part, :].reshape(len(y), -1) for part in range(op.parts)]
        return self.evaluate(op.epilogue, op.out.shape, accumulators)

    def attention(self, op: Attention) -> Array:
        q, k, v = self.look(op.q), self.look(op.k), self.look(op.v)  # [T, H, D], [T, G, D], [T, G, E]
        heads, groups = q.shape[1], k.shape[1]
        out = np.empty((len(q), heads, v.shape[2]), self.dtype)
        bias = None if op.bias is None else np.asarray(self.program.tables[op.bias], self.dtype)
        sinks = None if op.sinks is None else self.weights[op.sinks].reshape(-1)
        for start, end in zip(self.starts[:-1], self.starts[1:], strict=True):
            i, j = np.arange(end - start)[:, None], np.arange(end - start)[None, :]
            allowed = (j <= i) & ((j > i - op.window) if op.window else True)
            for head in range(heads):
                group = head * groups // heads
                scores = (q[start:end, head] @ k[start:end, group].T) * self.dtype(op.scale)
                if op.softcap:
                    scores = op.softcap * np.tanh(scores / op.softcap)
                if bias is not None:
                    scores = scores + bias[: end - start, head]
                scores = np.where(allowed, scores, -np.inf)
                top = scores.max(axis=1, keepdims=True)
                if sinks is not None:
                    top = np.maximum(top, sinks[head])
                p = np.exp(scores - top)
                total = p.sum(axis=1, keepdims=True)
                if sinks is not None:
                    total = total + np.exp(sinks[head] - top)
                out[start:end, head] = (p / total) @ v[start:end, group]
        return out.reshape(-1, *op.out.shape)
