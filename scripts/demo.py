#!/usr/bin/env python3
"""The demo: compile SmolLM2-135M-Instruct once, and ask it about 20 movie reviews, as it is and with an adapter.

It runs the commands that a user would, shows what they print, and ends with a summary. What takes long is kept in
.cache/demo: the model, and the program as long as neither the model nor the compiler has changed. How the adapter was
trained is told in docs/training.md.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from get_demo_model import CACHE, fetch

ROOT = Path(__file__).resolve().parent.parent
REVIEWS = ROOT / "examples" / "movie_reviews" / "reviews.jsonl"
ADAPTER = ROOT / "examples" / "movie_reviews" / "adapter"
NAME = "smollm2"
PEF = CACHE / "out" / NAME / f"{NAME}.pef"
SEPARATOR = f"\n{'-' * 20}\n"
LABELS = ("positive", "negative")


@dataclass(frozen=True)
class Ran:
    """What a command printed, and how long it took."""

    stdout: str
    stderr: str
    seconds: float


def show(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def bossa(*arguments: str | Path) -> Ran:
    """Run one bossa command as a user would, its stderr shown as it comes."""
    words = [show(word) if isinstance(word, Path) else word for word in arguments]
    print(f"$ bossa {shlex.join(words)}", flush=True)
    started = time.perf_counter()
    command = [sys.executable, "-m", "bossa", *words]
    environment = {**os.environ, "BOSSA_CACHE": str(CACHE)}
    lines = []
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as output,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=output, stderr=subprocess.PIPE
        ) as process,
    ):
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", flush=True)
            lines.append(line)
        if process.wait() != 0:
            sys.exit(process.returncode)
        output.seek(0)
        return Ran(output.read(), "".join(lines), time.perf_counter() - started)


def is_fresh(pef: Path, model: Path) -> bool:
    """Whether the program was compiled from this model by this compiler."""
    if not pef.exists():
        return False
    sources = [path for path in (ROOT / "src" / "bossa").rglob("*") if path.suffix in (".py", ".h")]
    return all(path.stat().st_mtime < pef.stat().st_mtime for path in [model, *sources])


def answer(prediction: str) -> str:
    """The first of the two labels in what follows the question; the prediction begins with its prompt."""
    completion = prediction.partition("Is this review positive or negative?")[2].lower()
    found = re.search("|".join(LABELS), completion)
    return found[0] if found else "neither"


@dataclass(frozen=True)
class Predicted(Ran):
    """What `bossa run` printed, and what it said of its speed."""

    tokens: str
    rate: str
    generating: float
    loading: float


def run(model: Path, *options: str | Path) -> Predicted:
    """Let the model go on from the reviews."""
    ran = bossa(
        *("run", "--inference", "--pef", PEF, "--model_name_or_path", model, *options, "--data_dir", REVIEWS),
        *("--max_tokens_to_generate", "20", "--generation-config", "none"),
    )
    found = re.search(r"([\d,]+) tokens in ([\d.]+) s: ([\d.,]+) tokens/s.*loaded in ([\d.]+) s", ran.stderr)
    if found is None:
        sys.exit("bossa run wrote no summary")
    tokens, generating, rate, loading = found.groups()
    return Predicted(ran.stdout, ran.stderr, ran.seconds, tokens, rate, float(generating), float(loading))


def answers(ran: Predicted, count: int) -> list[str]:
    """The answer to each review."""
    predictions = ran.stdout.removesuffix("\n").split(SEPARATOR)
    if len(predictions) != count:
        sys.exit(f"{count} reviews, but {len(predictions)} predictions")
    return [answer(prediction) for prediction in predictions]


def main() -> None:
    started = time.perf_counter()
    model = fetch()
    stages = [("fetch the model", time.perf_counter() - started)]

    if is_fresh(PEF, model):
        print(f"{show(PEF)} is up to date: not compiled again")
    else:
        folder = show(PEF.parent.parent)
        compiled = bossa(
            *("compile", model, "--inference", "--adapters", "--max_seq_length", "512", "-b", "8"),
            *("--output-folder", folder, "--pef-name", NAME),
        )
        print(compiled.stdout, end="")
        stages.append(("compile", compiled.seconds))
        stages += [
            (f"  {stage}", float(seconds))
            for stage, seconds in re.findall(r"^  (\S.*?) +([\d.]+) s$", compiled.stderr, re.MULTILINE)
        ]

    plain = run(model)
    tuned = run(model, "--adapter", ADAPTER)
    print(tuned.stdout, end="")
    for name, ran in (("run as it is", plain), ("run with the adapter", tuned)):
        stages += [(name, ran.seconds), ("  load", ran.loading), ("  generate", ran.generating)]

    records = [json.loads(line) for line in REVIEWS.read_text(encoding="utf-8").splitlines()]
    labels = [record["completion"] for record in records]
    print(f"\n=== SmolLM2-135M-Instruct on {len(records)} movie reviews " + "=" * 20)
    for stage, seconds in [*stages, ("all", time.perf_counter() - started)]:
        print(f"{stage:<32} {seconds:7.1f} s")
    print(f"{'generated':<32} {plain.rate:>7} tokens/s ({plain.tokens} tokens, 8 reviews at once)")
    for name, ran in (("right as it is", plain), ("right with the adapter", tuned)):
        said = answers(ran, len(records))
        right = sum(one == label for one, label in zip(said, labels, strict=True))
        counts = Counter(said)
        print(f"{name:<32} {right:>4} of {len(records)}")
        print(f"{'':<32} said " + ", ".join(f"{word} {counts[word]}" for word in (*LABELS, "neither")))
    print(f"{'':<32} labelled " + ", ".join(f"{label} {labels.count(label)}" for label in LABELS))


if __name__ == "__main__":
    main()
