"""Bossa beside llama.cpp, CTranslate2, OpenVINO GenAI and transformers: one model, one machine, one run.

    python benchmarks/setup_peers.py --work peers --model gpt2/
    python benchmarks/compare.py --work peers --model gpt2/ --prompts dev.jsonl

Every engine that setup_peers.py has made runs in an environment and process of its own; what is missing is said and
left out. Each peer's settings are tried first, case by case, and the fastest are measured. Then come the rounds:
in each every engine runs every case, another one first each time. Tables have medians of the rounds, and ratios are
taken within a round. The machine's limits are measured in each round too, where there is a C++ compiler.

OUT/figures.json has all raw figures, OUT/*.md the tables and OUT/*.png the charts; `--draw OUT` makes both again. OUT
is the model's folder among this machine's results (results/xeon-amx/gpt2, say) unless it is given.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comparison import output
from comparison.cases import CONTEXT, STEPS, RateCase, counts, job_cases, rate_cases
from comparison.engines import Engine, find_engines
from comparison.machine import measured, processor, results_folder
from comparison.results import OURS, Figure
from comparison.session import run_jobs, run_rates, say
from setup_peers import named_pythons


def costs(engines: Sequence[Engine], cases: Sequence[RateCase]) -> dict[str, dict[str, Any]]:
    """What each case costs our programs at least, by engine and case."""
    from bossa.bench import StepModel
    from bossa.pef import Pef
    from bossa.runtime.memory import ROWS_OF_A_STEP
    from bossa.targets.cpu.assemble import read_program

    found: dict[str, dict[str, Any]] = {}
    for engine in engines:
        if engine.family != OURS:
            continue
        pef = Pef.open(engine.model)
        model = StepModel.of_program(read_program(pef), pef.manifest.page_bytes, pef.manifest.page_size)
        for case in cases:
            if case.kind == "prefill":
                cost = model.prefill(case.size, ROWS_OF_A_STEP)
            else:
                cost = model.decode(case.size, CONTEXT + STEPS // 2)
            fields = {"tokens": case.size, "bytes": cost.bytes, "operations": dict(cost.operations)}
            found.setdefault(engine.name, {})[case.name] = fields
    return found


def machine_limits(threads: int) -> list[dict[str, Any]]:
    """This machine's limits now; none where they cannot be measured."""
    from bossa.bench import measure_limits
    from bossa.errors import ToolchainError

    try:
        return [measure_limits(threads, 3).to_json()]
    except ToolchainError as error:
        say(f"no limits: {error}")
        return []


def draw(folder: Path, kept: dict[str, Any]) -> None:
    from bossa.errors import RequestError

    output.write(folder, kept)
    try:
        for name in output.draw(folder, kept):
            say(f"drawn: {folder / name}")
    except RequestError as error:
        say(f"no charts: {error}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="what setup_peers.py has made")
    parser.add_argument("--model", type=Path, help="the checkpoint's folder")
    parser.add_argument("--prompts", help="a JSON Lines file of prompts, for the whole processes; left out without one")
    parser.add_argument("--out", type=Path, help="a folder  [default: the model's, of this machine's results]")
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH", help="as in setup_peers.py")
    parser.add_argument("--only", action="append", default=[], help="an engine (llama.cpp) or one precision of it")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=3, help="measurements of a case in a round")
    parser.add_argument("--prefill", type=counts, default=[128, 512, 1000], help="prompt lengths; '' for none")
    parser.add_argument("--decode", type=counts, default=[1, 8, 32], help="sequences; '' for none")
    parser.add_argument("--most-prompts", type=int, default=10**9, help="of the file of prompts")
    parser.add_argument("--draw", type=Path, metavar="OUT", help="make tables and charts of a finished run again")
    args = parser.parse_args(arguments)
    if args.draw is not None:
        draw(args.draw, output.read(args.draw / "figures.json"))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # for the workers' sake
    if args.work is None or args.model is None:
        parser.error("give --work and --model, or --draw")
    engines, missing = find_engines(
        args.work, args.model, {"bossa": sys.executable, **named_pythons(args.python)}, args.only
    )
    for line in missing:
        say(line)
    if not engines:
        say("nothing to run: make engines and models with setup_peers.py")
        return 1
    cases = rate_cases(args.prefill, args.decode)
    name = args.model.resolve().name
    out = args.out or results_folder(name)
    title = f"{name}, {args.threads} threads"
    kept: dict[str, Any] = {
        "about": {
            "title": title, "processor": processor(), "threads": args.threads, "rounds": args.rounds,
            "measured": f"{measured(args.threads)}; {name}, {args.rounds} rounds",
            "engines": {engine.name: str(engine.model.name) for engine in engines}, "missing": missing,
        },
        "limits": machine_limits(args.threads), "costs": costs(engines, cases),
        "rates": [], "seconds": [], "memory": [],
    }  # fmt: skip

    def after_rates(figures: list[Figure]) -> None:
        kept["rates"] = figures
        kept["limits"] += machine_limits(args.threads)
        output.write(out, kept)

    def after_jobs(seconds: list[Figure], memory: list[Figure]) -> None:
        kept["seconds"], kept["memory"] = seconds, memory
        output.write(out, kept)

    if cases:
        run_rates(engines, cases, args.rounds, args.repeat, args.threads, after_rates)
    if args.prompts is None:
        say("no whole processes: give --prompts")
    else:
        with open(args.prompts, encoding="utf-8") as file:
            total = min(sum(1 for line in file if line.strip()), args.most_prompts)
        run_jobs(engines, job_cases(total), args.prompts, args.rounds, args.threads, after_jobs)
    draw(out, kept)
    say(f"results: {out}")
    for name, table in output.tables(kept).items():
        print(f"\n{name}\n\n{table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
