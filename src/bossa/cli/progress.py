"""How work in progress is shown: stages of a compilation, packing, and a bar over prompts. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TextIO

from bossa.cli.text import redraw, say


class Stages:
    """One line a stage with the seconds it took: written when it ends, and on a terminal also while it runs.

    A stage that fails has no line: the error says it.
    """

    def __init__(self) -> None:
        self._name: str | None = None
        self._started = 0.0

    def __call__(self, name: str) -> None:
        """End the stage before, and begin the one called ``name``."""
        self._end()
        self._name, self._started = name, time.perf_counter()
        redraw(f"  {name} …")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._end(failed=kind is not None)

    def _end(self, failed: bool = False) -> None:
        if self._name is None:
            return
        redraw()
        if not failed:
            say(f"  {self._name:<40} {time.perf_counter() - self._started:6.1f} s")
        self._name = None


class Packing:
    """How far the packing of weights has come, which happens once a program and checkpoint: on a terminal alone."""

    def __init__(self) -> None:
        self._shown = -1

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // max(total, 1)
        if percent != self._shown and sys.stderr.isatty():
            self._shown = percent
            redraw(f"packing weights: {percent} %")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._shown >= 0:
            redraw()


class Bar:
    """Prompts done of all, tokens a second and the time left: on a terminal; elsewhere it shows nothing.

    Args:
        prompts: how many there are; None when that is not known.
    """

    def __init__(self, prompts: int | None) -> None:
        self._tokens = 0
        self._started = time.perf_counter()
        self._progress: Any = None
        if sys.stderr.isatty():
            self._progress = _rich_progress()
            self._task = self._progress.add_task("", total=prompts, rate="")

    def advance(self, tokens: int) -> None:
        """One more prompt is done, with ``tokens`` generated for it."""
        self._tokens += tokens
        if self._progress is not None:
            rate = self._tokens / (time.perf_counter() - self._started)
            self._progress.update(self._task, advance=1, rate=f"{rate:,.0f} tokens/s")

    @contextmanager
    def hidden(self, stream: TextIO) -> Iterator[None]:
        """Take the bar away while something is written to ``stream``, if that is a terminal too."""
        if self._progress is None or not stream.isatty():
            yield
            return
        self._progress.stop()
        try:
            yield
        finally:
            stream.flush()
            self._progress.start()

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def _rich_progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("generating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        redirect_stdout=False,  # predictions go to stdout as they are, whatever it is
        redirect_stderr=False,
    )
