"""A KeyboardInterrupt at any line of some code, as Ctrl-C may come."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def run_cut_off(engine: Any, watched: Callable[[str], bool], interrupt_at: int | None) -> list[tuple[str, int]]:
    """Step an engine to its end, or to a KeyboardInterrupt at one line of the files that are watched.

    Args:
        watched: whether a file is.
        interrupt_at: the number of the line among those that run, from 0; None: none.

    Returns:
        The lines that ran, file and number, the interrupted one last.
    """
    lines: list[tuple[str, int]] = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if not watched(frame.f_code.co_filename):
            return None
        if event == "line":
            lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(lines) - 1 == interrupt_at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        while engine._scheduler.unfinished:
            engine.step()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return lines
