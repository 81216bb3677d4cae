"""Signals that end a run: Ctrl-C, SIGTERM and SIGHUP all interrupt it in the same way.

What was ignored when the process started stays ignored, as ``nohup`` and a shell's background jobs want it; SIGTERM
alone always ends it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading

TYPE_CHECKING = False  # a name that type checkers know; importing typing takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal came; ``number`` says which."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        self.number = number


def number_of(interrupt: KeyboardInterrupt) -> int:
    """The signal behind an interrupt: Ctrl-C's, where nothing else is known."""
    return interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT


def describe(number: int) -> str:
    """What happened, in words."""
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


def quit_at_once() -> None:
    """From now on a signal ends the process at once, in one line: while there is nothing to keep or clean up."""
    _handle(_quit)


def _quit(number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"bossa: {describe(number)}\n".encode())
    os._exit(128 + number)


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Within the block a signal raises ``Interrupted`` in the main thread, as soon as nothing is ``held``."""
    before = _handle(_interrupt)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


class _Hold:
    """What must not be cut in two: how many blocks of it the main thread is in, and the signal that waits for them."""

    depth = 0
    waiting: int | None = None


def _interrupt(number: int, _frame: FrameType | None) -> None:
    if _Hold.depth:
        _Hold.waiting = number
    else:
        raise Interrupted(number)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Within the block no signal interrupts; one that came is raised at its end. For what soon ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Hold.depth += 1
    try:
        yield
    finally:
        _Hold.depth -= 1
        if not _Hold.depth and _Hold.waiting is not None:
            number, _Hold.waiting = _Hold.waiting, None
            raise Interrupted(number)


def _handle(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Set the handler of each signal that is not to be ignored; what their handlers were before."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGTERM:
                before[number] = signal.signal(number, handler)
    return before


class Noted:
    """What ``noted`` yields; ``number`` is the signal that came, if one did."""

    number: int | None = None


@contextlib.contextmanager
def noted() -> Iterator[Noted]:
    """Within the block the first signal is only written down, for work that ends at a place of its own choice.

    A second one interrupts at once.
    """
    found = Noted()

    def note(number: int, _frame: FrameType | None) -> None:
        if found.number is not None:
            raise Interrupted(number)
        found.number = number

    before = _handle(note)
    try:
        yield found
    finally:
        for number, former in before.items():
            signal.signal(number, former)
