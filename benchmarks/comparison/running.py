"""Runs workers: those that stay, one at work while the others are stopped; and whole processes, timed from outside."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

START_SECONDS, CASE_SECONDS = 600, 900


class WorkerFailed(Exception):
    """A worker did not start, ended, or took too long; the message says what it wrote last."""


class ServingWorker:
    """A worker with its model loaded. It is stopped (SIGSTOP) whenever it has nothing to do, so that no thread of an
    engine that waits takes time from the one that is measured."""

    def __init__(self, command: Sequence[str]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by `close`)
        self._process = subprocess.Popen(
            [*command, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._answer(START_SECONDS)
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def ask(self, request: Mapping[str, Any]) -> list[float]:
        """The rates that a worker measures.

        Raises:
            WorkerFailed: it cannot run this case, or ended.
        """
        self._signal(signal.SIGCONT)
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._answer(CASE_SECONDS)
        except OSError:
            raise WorkerFailed(self._last_words()) from None
        finally:
            self._signal(signal.SIGSTOP)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return [float(rate) for rate in answer["rates"]]

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _answer(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise WorkerFailed(f"no answer in {seconds} s") from None
        if not line:
            raise WorkerFailed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it ended without a word"


@dataclass(frozen=True)
class Run:
    """A whole process.

    Attributes:
        seconds: from its start to its end.
        peak_bytes: the most memory it had, shared files that it maps included.
        tokens: that it generated.
    """

    seconds: float
    peak_bytes: int
    tokens: int


def run_job(
    command: Sequence[str],
    prompts: str,
    count: int,
    new: int,
    settings: Mapping[str, Any],
    variables: Mapping[str, str],
) -> Run:
    """Run a worker once as a process of its own.

    Raises:
        WorkerFailed: it failed, or generated another number of tokens than was asked for.
    """
    job = ["job", "--prompts", prompts, "--count", str(count), "--new", str(new), "--settings", json.dumps(settings)]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        # Without the bytecode that Python keeps of what it imports, starting is mostly compiling.
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.Popen([*command, *job], stdout=output, stderr=errors, env={**kept, **variables})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
            raise WorkerFailed(lines[-1][:300] if lines else f"exit code {process.returncode}")
        answer = json.loads(output.read().splitlines()[-1])
    if answer["tokens"] != count * new:
        raise WorkerFailed(f"{answer['tokens']} tokens instead of {count * new}")
    # The child's own high-water mark where the system has one: ru_maxrss counts what it was before it was the worker.
    return Run(seconds, answer.get("peak_bytes") or usage.ru_maxrss * 1024, answer["tokens"])
