"""The process that runs cases of one reader: each batch in a child of its own, which a case may end, hang or fill.

What happened to each case goes to standard output as a line of JSON.
"""

from __future__ import annotations

import faulthandler
import gc
import hashlib
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from bossa.errors import BossaError
from fuzz.case import MEMORY, Watch, run_case
from fuzz.readers import make

CORPUS = Path(__file__).parent / "corpus"
GROWTH = 200 << 20
"""Bytes that a batch may leave behind."""
LARGEST = 1 << 20
"""Bytes of an input: what is after them is cut off."""
BATCH = 1000
"""Cases of one child."""
COUNTED = {"past": True, "seconds": 0.0, "memory": 0}
"""What is counted of a case that cannot say it."""
Case = int | str
"""A seed, or the path of an input."""


class Worker:
    """One reader, its seeds and its corpus."""

    def __init__(self, name: str, plan: dict[str, Any], out: TextIO) -> None:
        self.name = name
        self.seconds: int = plan["seconds"]
        self.root = Path(plan["root"])  # all that is in it is removed after each case
        self.kept, self.findings = (Path(plan[key]) / name if plan[key] else None for key in ("kept", "findings"))
        self.out = out
        self.reader = make(name)
        seeds, past = self.reader.seeds(), []
        for folder in (CORPUS / name, self.kept):
            if folder is not None and folder.is_dir():
                past += [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]
        self.bases = seeds * (1 + 2 * len(past) // len(seeds)) + past  # two good ones for each that is odd already
        self.log = self.root.parent / "log"
        self.again: set[Case] = set()
        self.watch = Watch(os.path.realpath(self.root))
        self._warm()

    def _warm(self) -> None:
        """Imports what the reader imports late, so that no case pays for it, and sees that the seeds are good."""
        for data in self.reader.seeds():
            folder = self.root / "warm"
            folder.mkdir()
            try:
                self.reader.read(data, folder)
            except BossaError as error:
                raise RuntimeError(f"a seed of {self.name} is refused: {error}") from error
            finally:
                self._clear()

    def input_of(self, case: Case) -> bytes:
        if isinstance(case, str):
            return Path(case).read_bytes()
        return self.reader.mutate(random.Random(f"{self.name} {case}"), self.bases)[:LARGEST]

    def run(self, cases: list[Case]) -> None:
        """Runs the cases, with a new child after each batch and after each child that a case has ended."""
        start = 0
        while start < len(cases):
            start = self._batch(cases, start)

    def _batch(self, cases: list[Case], start: int) -> int:
        """Runs cases from `start` on; returns where to go on."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            self._child(cases[start : start + BATCH], writing)
        os.close(writing)
        begun, done, whole = -1, 0, False
        for line in self._lines(reading, child):
            report = json.loads(line)
            if "begin" in report:
                begun = report["begin"]
                continue
            if "broken" in report:
                raise RuntimeError(report["broken"])
            whole = report.pop("end", False)
            if report:
                done += report["outcome"] != "grown"
                self._tell(report)
        os.close(reading)
        _, status = os.waitpid(child, 0)
        if whole:
            return start + done
        if begun < done:
            raise RuntimeError(f"a worker ended between cases: {self.log.read_text(errors='replace')[-2000:]}")
        report = {"outcome": "finding", **self._post_mortem(status)}
        if report["what"].startswith("no end") and cases[start + begun] not in self.again:
            self.again.add(
                cases[start + begun]
            )  # another process may have had the cores: a case is told the second time
            return start + begun
        self._tell({"case": cases[start + begun], **COUNTED, **report, "signature": signature_of(report)})
        return start + begun + 1

    def _lines(self, reading: int, child: int) -> Iterator[str]:
        """What a child says, until it ends; one that says nothing for long is ended."""
        held = b""
        while True:
            ready, _, _ = select.select([reading], [], [], 2 * self.seconds)
            if not ready:
                os.kill(child, signal.SIGKILL)
                continue
            data = os.read(reading, 1 << 16)
            if not data:
                return
            *lines, held = (held + data).split(b"\n")
            yield from (line.decode() for line in lines)

    def _tell(self, report: dict[str, Any]) -> None:
        if self.findings is not None and report["outcome"] == "finding":
            data = self.input_of(report["case"])
            path = keep(self.findings, report["signature"], data)
            report["input"] = str(path)
            if not path.with_suffix(".txt").exists():
                path.with_suffix(".txt").write_text(f"{report['what']} ({report['place']})\n")
        self.out.write(json.dumps({"reader": self.name, **report}) + "\n")
        self.out.flush()

    def _post_mortem(self, status: int) -> dict[str, Any]:
        """What ended a child: too much time, a signal or its own exit; with the place in its stack that was ours."""
        tail = self.log.read_text(errors="replace")
        stack = tail[max(tail.rfind("Timeout ("), tail.rfind("Fatal Python error"), 0) :]  # the innermost call first
        frames = re.findall(r'File "[^"]*/bossa/([^"]+)", line (\d+)', stack)
        place = ":".join(frames[0]) if frames else "?"
        if "Timeout (" in stack or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            return {"what": f"no end within {self.seconds} seconds", "place": place}
        if os.WIFSIGNALED(status):
            return {"what": f"ended by {signal.Signals(os.WTERMSIG(status)).name}: {tail[-200:]!a}", "place": place}
        return {"what": f"ended with exit code {os.waitstatus_to_exitcode(status)}: {tail[-200:]!a}", "place": place}

    # -- in the child ---------------------------------------------------------------------------------------------

    def _child(self, cases: list[Case], writing: int) -> None:
        code = 1
        try:
            self._clear()
            log = os.open(self.log, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            faulthandler.enable(log, all_threads=False)
            _limit()
            before = _held()
            for number, case in enumerate(cases):
                os.write(writing, json.dumps({"begin": number}).encode() + b"\n")
                report = self._case(case, log)
                os.write(writing, json.dumps(report).encode() + b"\n")
                if number == min(50, len(cases) // 2):
                    before = _held()
                if report["memory"] > MEMORY:
                    break
            if (grown := _grown(before, _held())) is not None:
                line = {"outcome": "grown", "what": grown, "place": f"{len(cases)} cases from this one on"}
                line |= {"case": cases[0], "signature": f"grown {grown.partition(' ')[2]}"}
                os.write(writing, json.dumps(line).encode() + b"\n")
            os.write(writing, b'{"end": true}\n')
            code = 0
        except BaseException:  # none of the project's, whose errors are caught around each case
            os.write(writing, json.dumps({"broken": traceback.format_exc()}).encode() + b"\n")
        finally:
            os._exit(code)

    def _case(self, case: Case, log: int) -> dict[str, Any]:
        data = self.input_of(case)
        past = self.reader.passes(data)
        folder = self.root / "case"
        folder.mkdir()
        started = time.perf_counter()
        faulthandler.dump_traceback_later(self.seconds, exit=True, file=log)
        try:
            report = run_case(self.reader, data, folder, self.watch)
        finally:
            faulthandler.cancel_dump_traceback_later()
        seconds = time.perf_counter() - started
        shutil.rmtree(folder)
        if (left := self._clear()) and report["outcome"] != "finding":
            report |= {"outcome": "finding", "what": f"leaves {left[0]!a} behind", "place": "files"}
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if memory > MEMORY and report["outcome"] != "finding":
            report |= {
                "outcome": "finding",
                "what": f"more memory than {MEMORY:,} bytes",
                "place": report["place"] or "?",
            }
        signature = signature_of(report)
        self._keep(data, signature, report["outcome"])
        return {"case": case, "past": past, "seconds": seconds, "memory": memory, "signature": signature, **report}

    def _clear(self) -> list[str]:
        """Removes what a case has left; its names."""
        left = list(self.root.iterdir())
        for path in left:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return [path.name for path in left]

    def _keep(self, data: bytes, signature: str, outcome: str) -> None:
        """Adds an input that came to a new end to the corpus that grows, for the next worker to start from."""
        if self.kept is None or outcome == "finding" or len(data) > 20_000:
            return
        keep(self.kept, signature, data)


def keep(folder: Path, signature: str, data: bytes) -> Path:
    """Writes an input under a name that stands for how it ended, unless there is one already."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(signature.encode()).hexdigest()[:12]}.bin"
    if not path.exists():
        path.write_bytes(data)
    return path


def signature_of(report: dict[str, Any]) -> str:
    """What cases have in common that end in the same way."""
    what = re.sub(r"[\d,]+", "", str(report["what"]).partition(": ")[0])
    return f"{report['outcome']} {what} {report['place']}"


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    status = Path("/proc/self/status").read_text()
    held = re.search(r"VmData:\s+(\d+) kB", status)
    if held is not None:
        most = int(held[1]) * 1024 + MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _held() -> tuple[int, int, int]:
    """Bytes, open files and threads of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize(), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def _grown(before: tuple[int, int, int], after: tuple[int, int, int]) -> str | None:
    grown = [b - a for a, b in zip(before, after, strict=True)]
    if grown[0] > GROWTH:
        return f"{grown[0]:,} bytes are left behind by a batch"
    if grown[1] > 20 or grown[2] > 20:
        return f"{grown[1]} open files and {grown[2]} threads are left behind by a batch"
    return None


def main() -> None:
    plan = json.loads(sys.argv[1])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.dont_write_bytecode = True
    for name in plan["readers"]:
        worker = Worker(name, plan, out)
        out.write(json.dumps({"reader": name, "outcome": "ready"}) + "\n")
        cases: list[Case] = [*plan["files"].get(name, []), *range(plan["first"], plan["first"] + plan["count"])]
        worker.run(cases)


if __name__ == "__main__":
    main()
