"""How speed changes as the work grows: with the batch, the prompt's length, and the model's size.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --precision fp32 --precision int8

Programs are compiled from configs, with random weights: GPT-2 small's layers for batch, prompt length and model size
(12 to 48 of them), and a Llama of 8,192 positions for long prompts. Every point is measured by `bossa bench`'s own
code, and its limit is drawn beside it. OUT/scaling.json has the points, OUT/scaling.md the tables, OUT/*.png the
charts; OUT is `scaling` among this machine's results unless it is given. Points that are in OUT/scaling.json already
are kept, so that a run which was interrupted can be continued.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from comparison.cases import counts
from comparison.machine import headed, measured, results_folder
from comparison.results import markdown

GPT2 = {
    "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 50257, "n_positions": 1024, "n_embd": 768,
    "n_head": 12, "n_layer": 12,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "hidden_size": 576,
    "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PROMPTS = (16, 32, 64, 128, 256, 512, 1000)
LONG_PROMPTS = (512, 1000, 2000, 4000, 8000)
LAYERS = (12, 24, 36, 48)
CONTEXT = 32


@dataclass(frozen=True)
class Sweep:
    """One line of a chart: a program, measured at several sizes.

    Attributes:
        chart: the chart that the line belongs to, and what its x-axis is.
        config: of the model.
        options: of `bossa bench`, beside the program.
        kind: which of the measured cases count: ``prefill`` or ``decode``.
        size: the field of a case that is x; or x itself, where all of a program is one point.
    """

    chart: str
    line: str
    config: dict[str, Any]
    options: tuple[str, ...]
    kind: str
    size: str | int
    batch: int = 1


@dataclass(frozen=True)
class Point:
    """A measured point: x, tokens a second, and what the machine allows (None where it is not known)."""

    chart: str
    line: str
    precision: str
    x: int
    rate: float
    limit: float | None
    bound: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def sweeps(batches: Sequence[int], prompts: Sequence[int], long: Sequence[int], layers: Sequence[int]) -> list[Sweep]:
    """What is measured; an empty list leaves its chart out."""
    no_decode = ("--batch", "1", "--context", "8")
    found = []
    if batches:
        options = ("--batch", _joined(batches), "--context", str(CONTEXT), "--prompt-lengths", "16")
        found.append(Sweep("batch", "GPT-2 small", GPT2, options, "decode", "batch", max(batches)))
    if prompts:
        options = ("--prompt-lengths", _joined(prompts), *no_decode)
        found.append(Sweep("prompt length", "GPT-2 small", GPT2, options, "prefill", "context"))
    if long:
        options = ("--prompt-lengths", _joined(long), *no_decode)
        found.append(Sweep("prompt length", "Llama, 135M", LLAMA, options, "prefill", "context"))
    for count in layers:
        options = ("--batch", "1,8", "--context", str(CONTEXT), "--prompt-lengths", "512")
        config = {**GPT2, "n_layer": count}
        found.append(Sweep("layers", "prefill 512", config, options, "prefill", count))
        found.append(Sweep("layers", "decode B1", config, options, "decode 1", count))
        found.append(Sweep("layers", "decode B8", config, options, "decode 8", count))
    return found


def points(sweep: Sweep, precision: str, figures: dict[str, Any], measured: str = "") -> list[Point]:
    """The points of a sweep in what `bossa bench --json` wrote; ``measured`` says what they are of."""
    kind, _, batch = sweep.kind.partition(" ")
    found = []
    for case in figures["cases"]:
        if case["kind"] != kind or (batch and case["batch"] != int(batch)):
            continue
        x = sweep.size if isinstance(sweep.size, int) else case[sweep.size]
        extra = {"share": case.get("share"), "measurements": case["measurements"], "measured": measured}
        found.append(
            Point(
                sweep.chart, sweep.line, precision, x, case["tokens_per_s"], case.get("limit_tokens_per_s"),
                case.get("bound_by", ""), extra,
            )
        )  # fmt: skip
    return found


def bends(line: Sequence[Point]) -> list[str]:
    """Where a line comes from one limit to another, in words."""
    found = []
    for before, after in pairwise(line):
        if before.bound and after.bound and before.bound != after.bound:
            found.append(f"bound by {before.bound} up to {before.x:,}, by {after.bound} from {after.x:,} on")
    return found


def lines(measured: Iterable[Point]) -> dict[tuple[str, str, str], list[Point]]:
    """Points by chart, line and precision, in the order of x."""
    found: dict[tuple[str, str, str], list[Point]] = {}
    for point in measured:
        found.setdefault((point.chart, point.line, point.precision), []).append(point)
    return {key: sorted(line, key=lambda point: point.x) for key, line in found.items()}


def tables(measured: Sequence[Point]) -> str:
    """A table for each line: x, rate, limit, share and what binds; below it, where the limit changes."""
    parts = []
    for (chart, name, precision), line in lines(measured).items():
        rows = [
            [
                f"{point.x:,}", f"{point.rate:,.1f}", "" if point.limit is None else f"{point.limit:,.1f}",
                "" if point.limit is None else f"{point.rate / point.limit:.0%}", point.bound,
            ]
            for point in line
        ]  # fmt: skip
        parts.append(f"{name}, {precision}\n\n{markdown([chart, 'tokens/s', 'limit', 'share', 'bound by'], rows)}")
        parts += [f"{words[0].upper()}{words[1:]}.\n" for words in bends(line)]
    return "\n".join(parts)


def draw(measured: Sequence[Point], folder: Path) -> list[str]:
    """A chart for each thing that grows: rates as lines with points, limits dashed in the same colour."""
    from bossa.bench.report import plotting, save

    pyplot = plotting()
    made = []
    for chart in dict.fromkeys(point.chart for point in measured):
        figure, axes = pyplot.subplots(figsize=(7, 4.5))
        for (own, name, precision), line in lines(measured).items():
            if own != chart:
                continue
            x = [point.x for point in line]
            (drawn,) = axes.plot(x, [point.rate for point in line], marker="o", label=f"{name}, {precision}")
            if all(point.limit is not None for point in line):
                axes.plot(x, [point.limit for point in line], linestyle="--", color=drawn.get_color(), linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        ticks = sorted({point.x for point in measured if point.chart == chart})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45)
        axes.xaxis.minorticks_off()
        axes.set_xlabel(chart)
        axes.set_ylabel("tokens/s (dashed: the machine's limit)")
        axes.grid(alpha=0.3)
        axes.legend()
        name = f"{chart.replace(' ', '-')}.png"
        save(figure, folder / name)
        pyplot.close(figure)
        made.append(name)
    return made


def measure(sweep: Sweep, precision: str, folder: Path, options: Sequence[str]) -> dict[str, Any] | None:
    """Compile a sweep's program and run `bossa bench` on it; None when either fails, which is said."""
    key = f"{abs(hash(json.dumps(sweep.config, sort_keys=True))):x}-{precision}-{sweep.batch}"
    pef = folder / key / key / f"{key}.pef"
    if not pef.exists():
        config = folder / f"{key}.json"
        config.write_text(json.dumps(sweep.config))
        compile_ = ["compile", "--config_name", str(config), "-b", str(sweep.batch), "--precision", precision]
        if not _bossa([*compile_, "--pef-name", key, "--output-folder", str(folder / key)]):
            return None
    figures = folder / "figures.json"
    if not _bossa(["bench", str(pef), *sweep.options, *options, "--json", str(figures)]):
        return None
    found: dict[str, Any] = json.loads(figures.read_text())
    return found


def _bossa(arguments: Sequence[str]) -> bool:
    result = subprocess.run([sys.executable, "-m", "bossa", *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        print(f"{' '.join(arguments[:4])} …: {result.stderr.strip()[-500:]}", file=sys.stderr)
    return result.returncode == 0


def _joined(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a folder  [default: scaling, of this machine's results]")
    parser.add_argument("--precision", action="append", help="may be repeated  [default: fp32]")
    parser.add_argument("--batches", type=counts, default=list(BATCHES), help="'' leaves them out; so for the others")
    parser.add_argument("--prompts", type=counts, default=list(PROMPTS))
    parser.add_argument("--long-prompts", type=counts, default=list(LONG_PROMPTS))
    parser.add_argument("--layers", type=counts, default=list(LAYERS))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeat", default="5", help="measurements of a point")
    parser.add_argument("--seconds", default="10", help="a point that has taken so long is not measured again")
    args = parser.parse_args(arguments)
    out = args.out or results_folder("scaling")
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "scaling.json"
    found = [Point(**point) for point in json.loads(kept.read_text())] if kept.exists() else []
    done = {(point.chart, point.line, point.precision, point.x) for point in found}
    options = ("--threads", str(args.threads), "--repeat", args.repeat, "--seconds", args.seconds)
    failed = False
    with tempfile.TemporaryDirectory(prefix="bossa-scaling-") as folder:
        known: dict[str, Any] = {}
        for precision in args.precision or ["fp32"]:
            for sweep in sweeps(args.batches, args.prompts, args.long_prompts, args.layers):
                if _is_done(sweep, precision, done):
                    continue
                key = json.dumps([sweep.config, sweep.options, precision])
                if key not in known:
                    known[key] = measure(sweep, precision, Path(folder), options)
                if known[key] is None:
                    failed = True
                    continue
                fresh = points(sweep, precision, known[key], measured(args.threads))
                places = {(point.chart, point.line, point.precision, point.x) for point in fresh}
                found = [
                    point
                    for point in found
                    if (point.chart, point.line, point.precision, point.x) not in places
                ] + fresh  # fmt: skip
                kept.write_text(json.dumps([asdict(point) for point in found], indent=1) + "\n")
                print(f"{sweep.chart}, {sweep.line}, {precision}: {len(fresh)} points", file=sys.stderr, flush=True)
    return _write(found, out) or int(failed)


def _is_done(sweep: Sweep, precision: str, done: set[tuple[str, str, str, int]]) -> bool:
    """Whether every point of a sweep is there already."""
    if isinstance(sweep.size, int):
        wanted = [sweep.size]
    else:
        option = "--batch" if sweep.size == "batch" else "--prompt-lengths"
        wanted = counts(sweep.options[sweep.options.index(option) + 1])
    return all((sweep.chart, sweep.line, precision, x) in done for x in wanted)


def _write(measured: Sequence[Point], folder: Path) -> int:
    from bossa.errors import RequestError

    text = tables(measured)
    heads = dict.fromkeys(point.extra.get("measured", "") for point in measured)
    (folder / "scaling.md").write_text(headed(list(heads), text))
    print(text)
    try:
        for name in draw(measured, folder):
            print(f"drawn: {folder / name}", file=sys.stderr)
    except RequestError as error:
        print(f"no charts: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
