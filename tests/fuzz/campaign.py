"""Runs of many cases: workers started, their reports counted, inputs of findings kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
TESTS = Path(__file__).parent.parent
SECONDS = 10
"""What a case may take."""


@dataclass(frozen=True)
class Finding:
    """A case that ended as none should. ``case`` is its seed, or the file that its input is in."""

    reader: str
    case: int | str
    what: str
    place: str
    signature: str
    input: str | None = None  # where its input was written

    def __str__(self) -> str:
        which = f"--seed {self.case}" if isinstance(self.case, int) else f"--input {self.case}"
        return f"{self.reader} {which}: {self.what} ({self.place})"


@dataclass
class Tally:
    """What became of the cases of one reader."""

    reader: str
    cases: int = 0
    past: int = 0
    refused: int = 0
    right: int = 0
    slowest: float = 0.0
    memory: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, report: Mapping[str, Any]) -> Finding | None:
        outcome = report["outcome"]
        if outcome == "ready":
            return None
        if outcome != "grown":
            self.cases += 1
            self.past += report["past"]
            self.slowest = max(self.slowest, report["seconds"])
            self.memory = max(self.memory, report["memory"])
        self.refused += outcome == "refused"
        self.right += outcome == "right"
        if outcome in ("refused", "right"):
            return None
        said = (report["what"], report["place"], report["signature"], report.get("input"))
        found = Finding(self.reader, report["case"], *said)
        self.findings.append(found)
        return found

    @property
    def kinds(self) -> list[Finding]:
        """One finding of each kind, the first."""
        return list({found.signature: found for found in reversed(self.findings)}.values())[::-1]

    def __str__(self) -> str:
        return (
            f"{self.reader:12} {self.cases:7,} cases  {self.past:7,} past the first check  {self.refused:7,} refused"
            f"  {self.right:7,} right  {len(self.findings):5,} findings of {len(self.kinds)} kinds"
            f"  slowest {self.slowest:5.2f} s  most memory {self.memory >> 20:4} MiB"
        )


def past_inputs(readers: Sequence[str]) -> dict[str, list[str]]:
    """The inputs in the corpus, by reader."""
    return {
        name: [str(path) for path in sorted((CORPUS / name).iterdir())] if (CORPUS / name).is_dir() else []
        for name in readers
    }


def reports(
    readers: Sequence[str],
    first: int,
    count: int,
    *,
    files: Mapping[str, Sequence[str]] | None = None,
    kept: Path | None = None,
    findings: Path | None = None,
    seconds: int = SECONDS,
) -> Iterator[dict[str, Any]]:
    """What a worker says of each case: of the files, then of the seeds from `first` on.

    Args:
        kept: a folder in which the corpus grows.
        findings: a folder for the inputs of what is found.
        seconds: what a case may take.
    """
    with tempfile.TemporaryDirectory(prefix="bossa-fuzz-") as folder:
        inside = Path(folder) / "root"
        inside.mkdir()
        plan = {
            **{"readers": list(readers), "first": first, "count": count, "seconds": seconds, "root": str(inside)},
            **{"files": dict(files or {}), "kept": str(kept or ""), "findings": str(findings or "")},
        }
        home = Path(folder) / "home"
        home.mkdir()
        environment = os.environ | {
            **{"TMPDIR": str(inside), "HOME": str(home), "XDG_CACHE_HOME": str(home), "HF_HOME": str(home)},
            **{"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
            **{"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "RUST_BACKTRACE": "0"},
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep),
        }
        environment.pop("BOSSA_CACHE", None)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fuzz.worker", json.dumps(plan)],
            env=environment,
            cwd=inside,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                yield json.loads(line)
            message = process.stderr.read()
            if process.wait() != 0:
                raise RuntimeError(
                    f"a worker of {', '.join(readers)} ended with {process.returncode}: {message[-2000:]}"
                )
        finally:
            process.kill()
            process.wait()


def run(readers: Sequence[str], first: int, count: int, **more: Any) -> dict[str, Tally]:
    """The tallies of all cases, by reader."""
    tallies = {name: Tally(name) for name in readers}
    for report in reports(readers, first, count, **more):
        tallies[report["reader"]].add(report)
    return tallies
