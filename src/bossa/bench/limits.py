"""This machine's limits, measured: bytes read a second, multiply-adds a second, and what a barrier takes."""

from __future__ import annotations

import ctypes
import functools
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bossa.errors import RuntimeFailure
from bossa.targets.cpu.toolchain import build_library, host_target

SOURCE = Path(__file__).parent / "limits.cc"
STREAMS = (1, 2, 4, 8)
AHEAD = (0, 256, 512, 1024, 4096)
"""Access patterns of a read: streams side by side in a thread, and bytes between a read and its prefetch (0: none)."""
LARGEST, SMALLEST = 1 << 30, 1 << 26
"""Bytes that are read: large, so that no cache holds them, and less where memory is short."""
SLICE = 0.02
"""Seconds that one try of an arithmetic limit takes, about."""
FINALISTS = 3


@dataclass(frozen=True)
class Limits:
    """What a machine allows: the best of several tries each.

    Attributes:
        target: what the measuring code was compiled for.
        threads: that took part.
        read_bytes_per_s, read_bytes_per_s_one: from memory, with all threads and with one.
        pattern, pattern_one: the access patterns that reached it, in words.
        operations_per_s: by arithmetic, as in ``Cost.operations``; a multiply-add is two.
        barrier_s: seconds from one barrier of the team to the next.
    """

    target: str
    threads: int
    read_bytes_per_s: float
    pattern: str
    read_bytes_per_s_one: float
    pattern_one: str
    operations_per_s: dict[str, float]
    barrier_s: float

    def best(self, other: Limits) -> Limits:
        """The better of two measurements, limit by limit."""
        read, one = (max(self, other, key=key) for key in (_read, _read_one))
        rates = {kind: max(rate, other.operations_per_s[kind]) for kind, rate in self.operations_per_s.items()}
        return Limits(
            self.target,
            self.threads,
            read.read_bytes_per_s,
            read.pattern,
            one.read_bytes_per_s_one,
            one.pattern_one,
            rates,
            min(self.barrier_s, other.barrier_s),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _read(limits: Limits) -> float:
    return limits.read_bytes_per_s


def _read_one(limits: Limits) -> float:
    return limits.read_bytes_per_s_one


def measure_limits(threads: int, seconds: float = 4.0) -> Limits:
    """Measure, for about so many seconds after the compiler has run.

    Raises:
        ToolchainError: there is no C++ compiler, or it failed.
        RuntimeFailure: there is no memory to read.
    """
    target = host_target()
    library = _library(target)
    with _Opened(library, threads) as bench:
        read, pattern = _best_read(bench, seconds * 0.4)
        rates = {kind: _best_rate(getattr(bench, kind), seconds * 0.1) for kind in ("fp32", "int16", "int8")}
        barrier = min(bench.barrier(2000) for _ in range(10))
        if threads == 1:
            one, pattern_one = read, pattern
    if threads > 1:
        with _Opened(library, 1) as bench:
            one, pattern_one = _best_read(bench, seconds * 0.3)
    return Limits(target, threads, read, pattern, one, pattern_one, rates, barrier)


def _best_read(bench: _Opened, seconds: float) -> tuple[float, str]:
    """Every pattern once, then the best few again until the time is over: the fastest, and the pattern in words."""
    best = {(streams, ahead): bench.read(streams, ahead) for streams in STREAMS for ahead in AHEAD}
    end = time.perf_counter() + seconds
    while True:
        for pattern in sorted(best, key=lambda pattern: -best[pattern])[:FINALISTS]:
            best[pattern] = max(best[pattern], bench.read(*pattern))
        if time.perf_counter() >= end:
            break
    streams, ahead = max(best, key=lambda pattern: best[pattern])
    words = f"{streams} stream{'s' if streams > 1 else ''} a thread, "
    words += f"prefetched {ahead} bytes ahead" if ahead else "no software prefetch"
    words += ", 2 MB pages" if bench.huge else ", pages of the usual size"
    return best[streams, ahead], words


def _best_rate(rate: Callable[[int], float], seconds: float) -> float:
    """Runs of about ``SLICE`` seconds until the time is over; the fastest."""
    steps = 1000
    while True:
        start = time.perf_counter()
        best = rate(steps)
        if time.perf_counter() - start >= SLICE / 2:
            break
        steps *= 2
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = max(best, rate(steps))
    return best


class _Opened:
    """The library with its threads and memory."""

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self._library = library
        size = LARGEST
        self._handle = library.limits_open(threads, size)
        while not self._handle and size > SMALLEST:
            size //= 2
            self._handle = library.limits_open(threads, size)
        if not self._handle:
            raise RuntimeFailure(f"not even {SMALLEST >> 20} MB of memory to measure reading with: free some")
        self.huge = bool(library.limits_huge_pages(self._handle))

    def read(self, streams: int, ahead: int) -> float:
        return float(self._library.limits_read(self._handle, streams, ahead))

    def fp32(self, steps: int) -> float:
        return float(self._library.limits_fp32(self._handle, steps))

    def int16(self, steps: int) -> float:
        return float(self._library.limits_int16(self._handle, steps))

    def int8(self, steps: int) -> float:
        return float(self._library.limits_int8(self._handle, steps))

    def barrier(self, steps: int) -> float:
        return float(self._library.limits_barrier(self._handle, steps))

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.limits_close(self._handle)


@functools.cache
def _library(target: str) -> ctypes.CDLL:
    data = build_library(SOURCE.read_text(encoding="utf-8"), target)
    with tempfile.TemporaryDirectory(prefix="bossa-limits-") as folder:
        path = Path(folder) / "limits.so"
        path.write_bytes(data)
        library = ctypes.CDLL(str(path))
    library.limits_open.restype = ctypes.c_void_p
    library.limits_open.argtypes = [ctypes.c_int32, ctypes.c_int64]
    library.limits_close.argtypes = [ctypes.c_void_p]
    library.limits_close.restype = None
    library.limits_huge_pages.argtypes = [ctypes.c_void_p]
    library.limits_huge_pages.restype = ctypes.c_int32
    for name in ("fp32", "int16", "int8", "barrier"):
        function = getattr(library, f"limits_{name}")
        function.restype, function.argtypes = ctypes.c_double, [ctypes.c_void_p, ctypes.c_int64]
    library.limits_read.restype = ctypes.c_double
    library.limits_read.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]
    return library
