"""Rates of a compiled program: prefill of one prompt and decode of several sequences, in tokens a second.

bossa_rates.py PEF MODEL THREADS  prints {"prefill 128": ..., "decode 8": ...}
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from bossa.pef import Pef
from bossa.runtime.program import Program
from bossa.weights.bind import bind
from bossa.weights.cache import WeightCache
from bossa.weights.slot import Slot
from bossa.weights.source import open_weights

PROMPTS = (128, 512, 1000)
BATCHES = (1, 8, 32)
CONTEXT, STEPS = 32, 32


def median_seconds(work: Callable[[int], object], times: int) -> float:
    """The median time of ``work(i)``, after one run that is not counted."""
    work(0)
    taken = []
    for i in range(times):
        start = time.perf_counter()
        work(i)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main(path: str, model: str, threads: int) -> dict[str, float]:
    pef = Pef.open(path)
    slots = [Slot.from_json(dict(slot)) for slot in pef.manifest.slots]
    weights = bind(slots, open_weights(model), ignored=pef.manifest.ignored_tensors, cache=WeightCache())
    program = Program(pef, weights, threads=threads, pages=max(BATCHES) * 4, max_rows=max(PROMPTS))
    random = np.random.default_rng(0)
    rates: dict[str, float] = {}
    for length in PROMPTS:
        pages = np.arange(-(-length // program.page_size))[None]

        def prefill(_: int, length: int = length, pages: np.ndarray = pages) -> None:
            tokens = random.integers(0, program.vocab_size, length)
            program.step(tokens, np.arange(length), np.array([0, length]), pages, np.array([length - 1]))

        rates[f"prefill {length}"] = length / median_seconds(prefill, 3)
    for batch in BATCHES:
        pages = np.arange(batch * 4).reshape(batch, 4)
        for s in range(batch):
            tokens = random.integers(0, program.vocab_size, CONTEXT)
            starts = np.array([0, CONTEXT])
            program.step(tokens, np.arange(CONTEXT), starts, pages[s : s + 1], np.array([CONTEXT - 1]))

        def decode(i: int, batch: int = batch, pages: np.ndarray = pages) -> None:
            tokens = random.integers(0, program.vocab_size, batch)
            rows = np.arange(batch)
            logits = program.step(tokens, np.full(batch, CONTEXT + i), np.arange(batch + 1), pages, rows)
            logits.argmax(axis=1)

        rates[f"decode {batch}"] = batch / median_seconds(decode, STEPS)
    return rates


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
