"""Records as they arrive: those of a pipe are read beside the work, which then never waits for them without need."""

from __future__ import annotations

import os
import queue
import stat
import sys
import threading
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

AHEAD = 64
"""Records that are read before they are asked for."""

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)


class Source(Protocol[Item_co]):
    """Items to take one by one."""

    def take(self, wait: bool) -> Item_co | None:
        """The next item; None where none has come yet, which ``wait`` excludes.

        Raises:
            StopIteration: there are no more.
        """


class AtHand(Generic[Item]):
    """Items that are there when they are asked for, as those of files are."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items

    def take(self, wait: bool) -> Item | None:
        return next(self._items)


class Arriving(Generic[Item]):
    """Items that may keep one waiting: a thread of its own waits for them, and a bounded queue holds them.

    The thread ends with the items, or with the process.
    """

    def __init__(self, items: Iterator[Item], ahead: int = AHEAD) -> None:
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(ahead)
        self._end: BaseException | None = None
        threading.Thread(target=self._read, args=(items,), name="bossa-records", daemon=True).start()

    def take(self, wait: bool) -> Item | None:
        if self._end is not None:
            raise self._end
        try:
            item, self._end = self._queue.get(block=wait)
        except queue.Empty:
            return None
        if self._end is not None:
            raise self._end
        return item

    def _read(self, items: Iterator[Item]) -> None:
        try:
            for item in items:
                self._queue.put((item, None))
            end: BaseException = StopIteration()
        except BaseException as error:  # told to whoever takes
            end = error
        self._queue.put((None, end))


def source(items: Iterator[Item], path: str) -> Source[Item]:
    """The items read from ``path``, by a thread where they may have to be waited for."""
    return Arriving(items) if may_wait(path) else AtHand(items)


def may_wait(path: str) -> bool:
    """Whether reading ``path`` may wait for somebody to write: standard input, a pipe or a device, but no file."""
    try:
        status = os.fstat(sys.stdin.fileno()) if path == "-" else os.stat(path)
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))
