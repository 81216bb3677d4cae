"""A whole comparison: settings are tried once, then rounds, in each of which every engine runs every case."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from comparison.cases import JobCase, RateCase
from comparison.engines import Engine, Settings
from comparison.results import OURS, Figure, best_settings
from comparison.running import ServingWorker, WorkerFailed, run_job

TRIAL_PROMPTS = 192
"""Prompts of a long job that its settings are tried with."""

COLD, WARM = "cold", "warm"

KEEPS_UP = 1.5
"""Engines that take up to so many times as long as the fastest peer with few prompts are run with many."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def in_turn(engines: Sequence[Engine], round_number: int) -> list[Engine]:
    """Another engine is first in each round."""
    start = round_number % max(1, len(engines))
    return [*engines[start:], *engines[:start]]


def choose(tried: Iterable[Settings], measure: Callable[[Settings], float], *, higher: bool) -> Settings:
    """The best of several settings; one alone is not tried.

    Raises:
        WorkerFailed: none of them runs.
    """
    candidates = list(tried)
    if len(candidates) == 1:
        return candidates[0]
    values: list[tuple[Settings, float]] = []
    failure = WorkerFailed("no settings to try")
    for settings in candidates:
        try:
            values.append((settings, measure(settings)))
        except WorkerFailed as error:
            failure = error
    if not values:
        raise failure
    return best_settings(values, higher=higher)


def median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def run_rates(
    engines: Sequence[Engine],
    cases: Sequence[RateCase],
    rounds: int,
    repeat: int,
    threads: int,
    after_round: Callable[[list[Figure]], None],
) -> list[Figure]:
    """Tokens a second of every engine in every case; what fails is said and left out."""
    figures: list[Figure] = []
    workers: dict[Engine, ServingWorker] = {}
    chosen: dict[tuple[Engine, RateCase], Settings] = {}
    try:
        for engine in engines:
            try:
                workers[engine] = ServingWorker(engine.command(threads))
            except WorkerFailed as error:
                say(f"{engine.name}: left out, it does not start: {error}")
        for engine, worker in workers.items():
            for case in cases:
                try:
                    chosen[engine, case] = choose(
                        engine.rate_settings(case),
                        lambda settings, case=case, worker=worker: median(worker.ask(case.request(1, settings))),
                        higher=True,
                    )
                except WorkerFailed as error:
                    say(f"{engine.name}, {case.name}: left out: {error}")
            say(f"{engine.name}: settings chosen")
        for number in range(rounds):
            for case in cases:
                for engine in in_turn(list(workers), number):
                    settings = chosen.get((engine, case))
                    if settings is None:
                        continue
                    try:
                        value = median(workers[engine].ask(case.request(repeat, settings)))
                    except WorkerFailed as error:
                        say(f"{engine.name}, {case.name}, round {number + 1}: {error}")
                        continue
                    figures.append(Figure(case.name, engine.name, engine.family, engine.bits, number, value, settings))
            after_round(figures)
            say(f"rates: round {number + 1} of {rounds} done")
    finally:
        for worker in workers.values():
            worker.close()
    return figures


def keep_up(engines: Sequence[Engine], case: JobCase, seconds: Sequence[Figure]) -> list[Engine]:
    """The engines that run a job: those that kept up with the fastest peer in the shorter one, in its first round."""
    taken: dict[str, float] = {}
    for figure in seconds:
        if figure.case == case.after and figure.round == 0:
            taken[figure.engine] = figure.value
    peers = {engine.name for engine in engines if engine.family != OURS}
    limit = KEEPS_UP * min((value for name, value in taken.items() if name in peers), default=float("inf"))
    # Ours are in there with how they were run.
    fast = {name for name, value in taken.items() if value <= limit}
    return [engine for engine in engines if engine.name in fast or f"{engine.name} {WARM}" in fast]


def run_jobs(
    engines: Sequence[Engine],
    cases: Sequence[JobCase],
    prompts: str,
    rounds: int,
    threads: int,
    after_case: Callable[[list[Figure], list[Figure]], None],
) -> tuple[list[Figure], list[Figure]]:
    """Seconds and peak bytes of whole processes; of ours with packed weights cached (warm) and without (cold).

    ``after_case`` gets all there is after each case of each round.
    """
    seconds: list[Figure] = []
    memory: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="bossa-caches-") as caches:

        def once(engine: Engine, kind: str, case: JobCase, count: int, settings: Settings) -> Any:
            cache = Path(caches) / (kind or "none")
            if kind == COLD:
                shutil.rmtree(cache, ignore_errors=True)
            variables = {"BOSSA_CACHE": str(cache)}
            return run_job(engine.command(threads), prompts, count, case.new, settings, variables)

        def settings_of(engine: Engine, case: JobCase) -> Settings | None:
            """The fastest settings; none where the job makes no sense for the engine, or fails, which is said."""
            candidates = engine.job_settings(case)
            if not candidates:
                return None
            count = min(case.prompts, TRIAL_PROMPTS)
            try:
                if engine.family == OURS:  # also packs the weights, for the warm runs
                    once(engine, WARM, case, 1, candidates[0])
                return choose(
                    candidates, lambda settings: once(engine, WARM, case, count, settings).seconds, higher=False
                )
            except WorkerFailed as error:
                say(f"{engine.name}, {case.name}: left out: {error}")
                return None

        chosen: dict[JobCase, dict[Engine, Settings]] = {}
        for number in range(rounds):
            for case in cases:
                if number >= (case.rounds or rounds):
                    continue
                if case not in chosen:
                    running = engines if case.after is None else keep_up(engines, case, seconds)
                    tried = {engine: settings_of(engine, case) for engine in running}
                    chosen[case] = {engine: settings for engine, settings in tried.items() if settings is not None}
                for engine in in_turn(list(chosen[case]), number):
                    settings = chosen[case][engine]
                    for kind in (COLD, WARM) if engine.family == OURS else ("",):
                        try:
                            run = once(engine, kind, case, case.prompts, settings)
                        except WorkerFailed as error:
                            say(f"{engine.name}, {case.name}, round {number + 1}: {error}")
                            continue
                        name = f"{engine.name} {kind}".strip()
                        common = (case.name, name, engine.family, engine.bits, number)
                        seconds.append(Figure(*common, run.seconds, settings))
                        memory.append(Figure(*common, float(run.peak_bytes), settings))
                after_case(seconds, memory)
            say(f"whole processes: round {number + 1} of {rounds} done")
    return seconds, memory
