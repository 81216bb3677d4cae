"""Questions to the network, none of which is waited for longer than seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 5.0
"""Seconds that a server has to connect, and to answer."""
T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """What ``work`` returns, or raises.

    Raises:
        TimeoutError: it takes longer, as a look-up of the hub's address may, which cannot be stopped.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="bossa-hub", daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"no answer in {seconds:g} seconds")
    return done[0]
