#!/usr/bin/env python3
"""Mutated inputs for every reader of files. Each must end soon, in one clear line or a right answer.

Inputs of what does not are kept in .cache/fuzz/findings, with what happened beside them. With --forever, inputs that
come to a new end are kept too, in .cache/fuzz/corpus, and later ones are made from them.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT / "tests")  # where the package of this script's own name is

from fuzz.campaign import Tally, past_inputs, reports  # noqa: E402
from fuzz.readers import READERS  # noqa: E402

CACHE = ROOT / ".cache" / "fuzz"
ROUND = 500
"""Cases after which a worker is started anew, with what the corpus has grown by."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Try mutated inputs on every reader of files.")
    parser.add_argument("--reader", action="append", choices=READERS, help="only this one; may be given several times")
    parser.add_argument("--seed", type=int, help="the case to run, or the first one with --count")
    parser.add_argument("--input", type=Path, help="a file to run as the only case; needs --reader")
    parser.add_argument("--count", type=int, help="cases of each reader (1 with --seed, else 1000)")
    parser.add_argument("--jobs", type=int, default=1, help="readers at once")
    parser.add_argument("--forever", action="store_true", help="go on until Ctrl-C, with a corpus that grows")
    options = parser.parse_args()
    if options.input is not None and len(options.reader or ()) != 1:
        parser.error("--input needs one --reader")
    return options


class Campaign:
    """Tallies of all readers, and what was found already."""

    def __init__(self, readers: list[str], kept: Path | None) -> None:
        self.tallies = {name: Tally(name) for name in readers}
        self.kept = kept
        self.seen: set[str] = set()
        self.lock = threading.Lock()

    def run(self, reader: str, first: int, count: int, files: list[str]) -> None:
        more = {"files": {reader: files}, "kept": self.kept, "findings": CACHE / "findings"}
        for report in reports([reader], first, count, **more):
            with self.lock:
                found = self.tallies[reader].add(report)
                if found is not None and (reader, found.signature) not in self.seen:
                    self.seen.add((reader, found.signature))
                    again = f"python scripts/fuzz.py --reader {reader} --input {found.input}"
                    print(f"{found}\n  again: {again}", flush=True)

    def summary(self) -> str:
        return "\n".join(str(tally) for tally in self.tallies.values() if tally.cases)


def main() -> int:
    options = arguments()
    readers = options.reader or list(READERS)
    campaign = Campaign(readers, CACHE / "corpus" if options.forever else None)
    if options.input is not None:
        campaign.run(readers[0], 0, 0, [str(options.input.resolve())])
    else:
        count = options.count or (1 if options.seed is not None else 1000)
        first = secrets.randbelow(10**9) if options.forever and options.seed is None else options.seed or 0
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                run_round(campaign, readers, first, ROUND if options.forever else count, options)
                first += ROUND
                if not options.forever:
                    break
                print(f"\n{campaign.summary()}\n", flush=True)
    print(campaign.summary())
    return 1 if any(tally.findings for tally in campaign.tallies.values()) else 0


def run_round(campaign: Campaign, readers: list[str], first: int, count: int, options: argparse.Namespace) -> None:
    """So many cases of each reader, several readers at once."""
    from concurrent.futures import ThreadPoolExecutor

    past = past_inputs(readers) if options.seed is None else {}
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(campaign.run, name, first, count, past.get(name, [])) for name in readers]
        for each in running:
            each.result()


if __name__ == "__main__":
    sys.exit(main())
