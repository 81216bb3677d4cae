"""Tokens a second of a loaded model: one prompt's prefill, and decoding of several sequences in steady state."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bossa.bench.limits import Limits
from bossa.bench.model import Cost
from bossa.engine.engine import Engine
from bossa.engine.request import Request
from bossa.errors import RequestError
from bossa.sampling.parameters import SamplingParams

STEPS = 32
"""Steps of one measurement of decoding."""
FEWEST = 2
"""Measurements of a case, however long they take."""


@dataclass(frozen=True)
class Rate:
    """One case: what was run, how fast, and what it costs.

    Attributes:
        kind: ``prefill`` or ``decode``.
        batch: sequences side by side.
        context: tokens of the prompt; in decoding the context that is halfway through.
        rates: tokens a second, a measurement each.
        tokens: what a step, or a whole prefill, brings.
        cost: of that step or prefill.
    """

    kind: str
    batch: int
    context: int
    rates: tuple[float, ...]
    tokens: int
    cost: Cost

    @property
    def name(self) -> str:
        return f"prefill {self.context}" if self.kind == "prefill" else f"decode {self.batch} × {self.context}"

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    def limit(self, limits: Limits) -> tuple[float, str]:
        """Tokens a second that the machine allows, and which limit that is: ``read`` or ``multiply-add``."""
        reading = self.cost.read_seconds(limits.read_bytes_per_s)
        computing = self.cost.arithmetic_seconds(limits.operations_per_s)
        if reading >= computing:
            return self.tokens / reading, "read"
        return self.tokens / computing, "multiply-add"

    def to_json(self, limits: Limits | None) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "kind": self.kind,
            "batch": self.batch,
            "context": self.context,
            "tokens_per_s": self.median,
            "measurements": list(self.rates),
            "weight_bytes": self.cost.weight_bytes,
            "kv_bytes": self.cost.kv_bytes,
            "operations": dict(self.cost.operations),
            "barriers": self.cost.barriers,
        }
        if limits is not None:
            limit, kind = self.limit(limits)
            fields |= {"limit_tokens_per_s": limit, "share": self.median / limit, "bound_by": kind}
        return fields


def prefill_rates(engine: Engine, length: int, repeat: int, seconds: float) -> tuple[float, ...]:
    """Prompts of so many tokens, each to its first new token: tokens of the prompt a second.

    Raises:
        RequestError: such a prompt does not fit the program or its memory.
    """
    return tuple(length / taken for taken in _repeated(_prefills(engine, length), repeat, seconds))


def decode_rates(
    engine: Engine, batch: int, context: int, steps: int, repeat: int, seconds: float
) -> tuple[tuple[float, ...], int]:
    """Steps of ``batch`` sequences, all of them decoding, from prompts of ``context`` tokens on.

    Returns:
        New tokens a second, and the mean context halfway: a sequence whose prompt ran early has gone on a little.

    Raises:
        RequestError: so many sequences of this length do not fit the program or its memory.
    """
    contexts: list[float] = []
    taken = _repeated(_decodes(engine, batch, context, steps, contexts), repeat, seconds)
    return tuple(batch * steps / time for time in taken), round(statistics.mean(contexts))


def _repeated(work: Iterator[float], repeat: int, seconds: float) -> list[float]:
    """The times of ``repeat`` measurements, or of fewer when they take too long; the first is not counted."""
    next(work)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < repeat and (len(taken) < FEWEST or time.perf_counter() < end):
        taken.append(next(work))
    return taken


def _prefills(engine: Engine, length: int) -> Iterator[float]:
    random = np.random.default_rng()  # unseeded: a prompt that ran before would share its pages
    while True:
        request = _request(random, 0, engine.program.vocab_size, length, 1)
        engine.submit(request)
        start = time.perf_counter()
        while request.finish_reason is None:
            engine.step()
        yield time.perf_counter() - start


def _decodes(engine: Engine, batch: int, context: int, steps: int, contexts: list[float]) -> Iterator[float]:
    """The time of so many steps of fresh sequences; the mean context of each is added to ``contexts``."""
    random = np.random.default_rng()
    if batch > engine.batch_size:
        raise RequestError(f"a batch of {batch} is more than the {engine.batch_size} sequences that were loaded for")
    prefill_steps = 4 + 2 * -(-batch * context // engine.program.max_rows)  # others decode meanwhile
    new = min(steps + prefill_steps, engine.max_seq_length - context)
    while True:
        requests = [_request(random, i, engine.program.vocab_size, context, new) for i in range(batch)]
        try:
            for request in requests:
                engine.submit(request)
            while not all(request.output_ids for request in requests):
                if engine.step():
                    _no_room(batch, context)
            before = [len(request.tokens) for request in requests]
            contexts.append((sum(before) + steps * batch / 2) / batch)
            grown = 0
            start = time.perf_counter()
            # The program may run several steps at a time, and then a few more than were asked for.
            while grown < steps and requests[0].finish_reason is None:
                engine.step()
                grown = len(requests[0].tokens) - before[0]
            taken = time.perf_counter() - start
            if grown < steps or any(
                len(request.tokens) - had != grown for request, had in zip(requests, before, strict=True)
            ):
                _no_room(batch, context)
            yield taken * steps / grown
        finally:
            engine.abort(requests)


def _request(random: np.random.Generator, number: int, vocabulary: int, length: int, new: int) -> Request:
    tokens = random.integers(0, vocabulary, length).tolist()
    return Request(number, tokens, SamplingParams(max_new_tokens=new, ignore_eos=True))


def _no_room(batch: int, context: int) -> None:
    raise RequestError(
        f"{batch} sequences of {context} tokens and their new ones do not run side by side in the KV memory and length"
        " there is: allow more with --memory, or ask for a smaller batch or context"
    )
