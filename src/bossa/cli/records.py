"""The records that are run, the first so many, and what is left out after them."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from itertools import islice

from bossa.dataset import BadRecord, Record, read_records, source
from bossa.dataset.arrival import may_wait
from bossa.dataset.prompts import files
from bossa.errors import DatasetError

LONGEST_COUNT = 2.0
"""Seconds that counting what is left out may take."""


def refuse_input(path: str, output: str, option: str = "--output") -> None:
    """Refuse an output that would take the place of a file which the records of ``path`` are read from.

    Args:
        option: what names the output.

    Raises:
        DatasetError: it would.
    """
    try:
        place = os.stat(output)
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(place.st_mode):
        return
    for file in files(path):
        try:
            status = os.fstat(sys.stdin.fileno()) if file == "-" else os.stat(file)
        except (OSError, ValueError):
            continue
        if os.path.samestat(place, status):
            raise DatasetError(f"{output} is also an input, which would be overwritten: give another {option}")


class Chosen:
    """A source of the first records of ``path``; of all where ``most`` is None.

    Raises:
        DatasetError: there is nothing to read.
    """

    def __init__(self, path: str, most: int | None, prompt_field: str = "prompt") -> None:
        self._path = path
        self._most = most
        self._taken = 0
        self._waits = may_wait(path)
        self._prompt_field = prompt_field
        self._source = source(self._read(), path)

    def take(self, wait: bool) -> Record | BadRecord | None:
        """As ``Source`` has it."""
        if self._taken == self._most:
            raise StopIteration
        record = self._source.take(wait)
        self._taken += record is not None
        return record

    def count(self) -> int | None:
        """How many are to be run; None where that cannot be known beforehand."""
        return None if self._waits or self._path == "-" else sum(1 for _ in islice(self._read(), self._most))

    def _read(self) -> Iterator[Record | BadRecord]:
        return read_records(self._path, self._prompt_field)

    def left_out(self) -> str:
        """What comes after those that were taken, in words; empty for nothing, or for what has not come yet."""
        left, give_up = 0, time.monotonic() + LONGEST_COUNT
        try:
            while self._source.take(wait=False) is not None:
                left += 1
                if self._waits or (left % 1000 == 0 and time.monotonic() > give_up):
                    return "more records were" if self._waits else f"at least {left:,} more records were"
        except (StopIteration, DatasetError):
            pass
        return f"{left:,} more record{'s were' if left != 1 else ' was'}" if left else ""
