"""What precisions cost in quality: the perplexity of reviews under one checkpoint, in each engine's own forms of it.

    python benchmarks/setup_peers.py --work peers --model smollm2/
    python benchmarks/quality.py --work peers --model smollm2/ --reviews dev.jsonl

The reviews are joined, a line each, tokenized once, and cut into windows; every engine scores the same token ids: each
token of a window but its first, given those before it in the window. Beside the perplexity stand the bytes of all
weights. transformers in fp32 is the reference. OUT/quality.json has the figures, OUT/quality.md the table; OUT is
`quality` among this machine's results unless it is given.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from comparison.engines import Engine, find_engines
from comparison.machine import headed, measured, results_folder
from comparison.results import markdown
from setup_peers import named_pythons

ENGINES = ("transformers eager", "Bossa", "llama.cpp")
REFERENCE = "transformers eager"


def review_texts(lines: Iterable[str], field: str, begin: str, end: str) -> list[str]:
    """The text of each record: its field, from after ``begin`` to before ``end`` where it has them."""
    texts = []
    for line in lines:
        if line.strip():
            text = json.loads(line)[field]
            text = text.partition(begin)[2] if begin and begin in text else text
            texts.append((text.partition(end)[0] if end else text).strip())
    return texts


def cut(ids: Sequence[int], window: int, most: int | None = None) -> list[list[int]]:
    """Windows of the same length, one after the other; what is left at the end is not used."""
    used = len(ids) if most is None else min(most, len(ids))
    return [list(ids[start : start + window]) for start in range(0, used - window + 1, window)]


def score(engine: Engine, windows: str, threads: int) -> dict[str, Any] | None:
    """What an engine's worker finds; None when it fails, which is said."""
    result = subprocess.run([*engine.command(threads), "quality", "--windows", windows], capture_output=True, text=True)
    if result.returncode != 0:
        words = [line for line in result.stderr.splitlines() if line.strip()]
        print(f"{engine.name}: left out: {words[-1] if words else result.returncode}", file=sys.stderr)
        return None
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer | {"perplexity": math.exp(answer["nll"] / answer["tokens"])}


def quality_table(scores: dict[str, dict[str, Any]]) -> str:
    """Perplexity, how far it is from the reference, and bytes of the weights."""
    reference = scores.get(REFERENCE, {}).get("perplexity")
    rows = []
    for name, found in scores.items():
        against = "" if reference is None else f"{found['perplexity'] / reference - 1:+.2%}"
        rows.append([name, f"{found['perplexity']:.4f}", against, f"{found['weight_bytes'] / 1e6:,.1f}"])
    return markdown(["", "perplexity", "against fp32", "MB of weights"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="what setup_peers.py has made")
    parser.add_argument("--model", type=Path, required=True, help="the checkpoint's folder")
    parser.add_argument("--reviews", type=Path, required=True, help="a JSON Lines file")
    parser.add_argument("--field", default="prompt", help="the field with the text  [default: prompt]")
    parser.add_argument("--begin", default="REVIEW: ", help="the text starts after this, where it is there")
    parser.add_argument("--end", default=" QUESTION: ", help="and ends before this")
    parser.add_argument("--window", type=int, default=512, help="tokens scored together  [default: 512]")
    parser.add_argument("--tokens", type=int, help="use no more than these")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH", help="as in setup_peers.py")
    parser.add_argument("--only", action="append", default=[], help="an engine, or one precision of it")
    parser.add_argument("--out", type=Path, help="a folder  [default: quality, of this machine's results]")
    args = parser.parse_args(arguments)
    from bossa.tokenizer import Tokenizer

    with args.reviews.open(encoding="utf-8") as file:
        text = "\n".join(review_texts(file, args.field, args.begin, args.end))
    ids = Tokenizer.from_directory(args.model).encode(text, add_special_tokens=False)
    windows = cut(ids, args.window, args.tokens)
    if not windows:
        parser.error(f"{args.reviews}: fewer than {args.window} tokens: give more text, or a smaller --window")
    print(f"{len(windows)} windows of {args.window} tokens", file=sys.stderr)
    pythons = {"bossa": sys.executable, **named_pythons(args.python)}
    engines, missing = find_engines(args.work, args.model, pythons, args.only or ENGINES)
    for line in missing:
        print(line, file=sys.stderr)
    scores: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "windows.json"
        path.write_text(json.dumps(windows))
        for engine in sorted(engines, key=lambda engine: engine.name != REFERENCE):
            found = score(engine, str(path), args.threads)
            if found is not None:
                scores[engine.name] = found
                print(f"{engine.name}: {found['perplexity']:.4f}", file=sys.stderr)
    out = args.out or results_folder("quality")
    out.mkdir(parents=True, exist_ok=True)
    name = args.model.resolve().name
    about = {"model": name, "window": args.window, "windows": len(windows), "missing": missing}
    (out / "quality.json").write_text(json.dumps({"about": about, "scores": scores}, indent=1) + "\n")
    tokens = f"{len(windows) * args.window:,} tokens in windows of {args.window}"
    head = f"{measured(args.threads)}; {name}, {tokens}"
    (out / "quality.md").write_text(headed(head, quality_table(scores)))
    print(quality_table(scores), end="")
    print(f"results: {out}", file=sys.stderr)
    return 0 if scores else 1


if __name__ == "__main__":
    sys.exit(main())
