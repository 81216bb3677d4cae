"""What the system says of a map of this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray


def of_map(array: NDArray[Any], field: str) -> int:
    """A figure of the map that holds an array, from /proc/self/smaps: kilobytes, for ``Rss`` and its like."""
    address = array.ctypes.data
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first:
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end
        elif inside and first == f"{field}:":
            return int(line.split()[1])
    raise AssertionError(f"no {field} of the map")
