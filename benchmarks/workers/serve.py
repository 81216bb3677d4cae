"""What the workers share: a worker holds one engine with one model, and runs what it is asked for.

    WORKER.py --model PATH --threads N [--tokenizer FOLDER] serve
    WORKER.py --model PATH --threads N [--tokenizer FOLDER] job --prompts FILE --count N --new N --settings JSON
    WORKER.py --model PATH --threads N [--tokenizer FOLDER] quality --windows FILE

``serve`` answers requests, a JSON object a line, from standard input, until that ends: the model is loaded once and no
start is timed. ``job`` is a whole process, as a user would start it: load, tokenize, generate, end. ``quality`` scores
token ids, lists of them in a JSON file. Nothing here needs more than Python: each worker runs in the environment of its
engine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

STEPS_AHEAD = 2
"""Steps of decoding that are not timed, at the start."""

Settings = dict[str, Any]


class Worker(Protocol):
    """An engine with a model. Rates are tokens a second, one for each measurement."""

    def prefill(self, length: int, repeat: int, settings: Settings) -> list[float]:
        """One prompt of random tokens, to the logits of its last one or the first new token."""

    def decode(self, batch: int, context: int, steps: int, repeat: int, settings: Settings) -> list[float]:
        """New tokens of sequences that all decode, from ``context`` tokens on, prefill and start left out."""

    def generate(self, prompts: list[str], new: int, settings: Settings) -> int:
        """Complete texts greedily by ``new`` tokens each, whatever they are; how many were generated in all."""


@runtime_checkable
class Scorer(Protocol):
    """A worker that gives logits."""

    def logits(self, ids: list[int]) -> Any:
        """The logits, float32 [tokens, vocabulary], at each position."""

    def weight_bytes(self) -> int:
        """Bytes of all weights as they are kept."""


def surprise(logits: Any, ids: list[int]) -> float:
    """The sum of -log p of every token after the first, given those before it, in float64."""
    import numpy as np

    total = 0.0
    for row, token in zip(logits[:-1], ids[1:], strict=True):
        wide = row.astype(np.float64)
        top = wide.max()
        total += top + float(np.log(np.exp(wide - top).sum())) - float(wide[token])
    return float(total)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def repeated(work: Callable[[], float], repeat: int) -> list[float]:
    """What so many measurements give, after one that is not counted."""
    work()
    return [work() for _ in range(repeat)]


def difference(tokens: int, long: float, short: float) -> float:
    """The rate of what a long generation has more than a short one."""
    if long <= short:
        raise RuntimeError("the machine is too busy: a longer generation took no longer")
    return tokens / (long - short)


def random_ids(vocabulary: int, length: int) -> list[int]:
    return [random.randrange(vocabulary) for _ in range(length)]


def groups(count: int, batch: int) -> list[range]:
    """The numbers 0 to ``count`` - 1 in runs of at most ``batch``."""
    return [range(start, min(start + batch, count)) for start in range(0, count, batch)]


def peak_bytes() -> int | None:
    """The most memory that this process had so far (VmHWM); None where the system does not say."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def read_prompts(path: str, count: int) -> list[str]:
    """The ``prompt`` fields of the first records of a JSON Lines file."""
    prompts = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if len(prompts) == count:
                break
            if line.strip():
                prompts.append(json.loads(line)["prompt"])
    return prompts


def main(make: Callable[[str, str, int], Worker]) -> None:
    """Run a worker; ``make`` gets the model's path, the folder of its tokenizer, and the number of threads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer", default="")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("mode", choices=["serve", "job", "quality"])
    parser.add_argument("--prompts")
    parser.add_argument("--windows")
    parser.add_argument("--count", type=int)
    parser.add_argument("--new", type=int)
    parser.add_argument("--settings", type=json.loads, default={})
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes elsewhere
    os.dup2(2, 1)
    worker = make(args.model, args.tokenizer, args.threads)
    if args.mode == "job":
        tokens = worker.generate(read_prompts(args.prompts, args.count), args.new, args.settings)
        print(json.dumps({"tokens": tokens, "peak_bytes": peak_bytes()}), file=answers, flush=True)
        return
    if args.mode == "quality":
        if not isinstance(worker, Scorer):
            raise SystemExit(f"{type(worker).__name__} does not score tokens")
        with open(args.windows, encoding="utf-8") as file:
            windows = json.load(file)
        total = sum(surprise(worker.logits(window), window) for window in windows)
        answer = {"nll": total, "tokens": sum(map(len, windows)) - len(windows), "weight_bytes": worker.weight_bytes()}
        print(json.dumps(answer), file=answers, flush=True)
        return
    random.seed(0)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(worker, json.loads(line))), file=answers, flush=True)


def _answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    try:
        if request["do"] == "prefill":
            rates = worker.prefill(request["length"], request["repeat"], request["settings"])
        else:
            rates = worker.decode(
                request["batch"], request["context"], request["steps"], request["repeat"], request["settings"]
            )
        return {"rates": rates}
    except Exception as error:  # the round goes on without this case
        return {"error": f"{type(error).__name__}: {error}"}
