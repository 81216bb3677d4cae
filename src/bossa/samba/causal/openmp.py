"""The threads of OpenMP, with which torch computes.

Between two operators they wait by spinning, for milliseconds, on the CPUs that the native program's own threads need:
on 2 cores a step of GPT-2 small takes half as long again. So they are sent away before it; torch's next operator that
is large enough starts new ones, within some 0.1 ms.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable

_RUNTIME = re.compile(r"/lib(gomp|omp|iomp5)\b[^/]*$")
_SOFT = 1
"""omp_pause_soft: what threads keep for themselves stays."""


def send_threads_away() -> None:
    """Ends the threads that wait for this thread's next operator; does nothing where no runtime is found."""
    for pause in _pauses():
        pause(_SOFT)


@functools.cache
def _pauses() -> list[Callable[[int], int]]:
    """``omp_pause_resource_all`` of every OpenMP runtime in this process: packages bring their own."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
            paths = {line.split(maxsplit=5)[5].rstrip("\n") for line in file if line.count("/")}
    except OSError:
        return []
    found: list[Callable[[int], int]] = []
    for path in sorted(paths):
        if _RUNTIME.search(path):
            try:
                found.append(ctypes.CDLL(path).omp_pause_resource_all)
            except (OSError, AttributeError):  # gone from the disk, or older than OpenMP 5
                continue
    return found
