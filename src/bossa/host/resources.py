"""Cores and memory that this process may use: those of the machine, less what its container and affinity withhold.

Control groups of both versions are read as Linux documents them (``cpu.max`` and ``memory.max``; ``cpu.cfs_quota_us``
and ``memory.limit_in_bytes``), from the process's own group up to the root: the tightest limit holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60
"""Version 1 writes "no limit" as a number close to 2^63."""
MEMORY_LIMITS = (
    ("memory.max", "memory.current"),
    ("memory.high", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Files with a limit, and with what counts towards it. Past ``memory.high`` a process is not killed, but held up."""


def cores() -> int:
    """Threads that can run at once: CPUs of the affinity mask, at most as many as the quota pays for.

    A broken quota is rounded up where it is a quarter of a CPU or more: with 1.25 CPUs two threads, though they are
    stopped for part of the time, decoded 11 to 21% faster than one, and with 1.5 by 26 to 46%; with 1 they are slower.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    quota = _quota()
    return count if quota is None else max(1, min(count, ceil(quota - 0.2)))


def free_memory() -> int:
    """Bytes that can be had without swapping or passing a limit, as far as the system tells."""
    return max(0, min([_free_of_machine(), *_free_of_groups(), *_free_of_process()]))


def _quota() -> float | None:
    """CPUs' worth of time that the control groups allow; None where they set no limit."""
    quotas = []
    for group in _groups("cpu"):
        quota, period = [*_words(group / "cpu.max"), "max", ""][:2]
        if quota == "max" and not period:
            quota = (_words(group / "cpu.cfs_quota_us") or ["max"])[0]
            period = (_words(group / "cpu.cfs_period_us") or [""])[0]
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):  # version 1 writes -1 for no limit
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _free_of_groups() -> Iterator[int]:
    for group in _groups("memory"):
        for limit, usage in MEMORY_LIMITS:
            most = _number(group / limit)
            if most is not None and most < UNLIMITED:
                yield most - (_number(group / usage) or 0) + _reclaimable(group)


def _free_of_process() -> Iterator[int]:
    """What is left of the address space that ``ulimit -v`` allows."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        used = int((_words(PROC / "self/statm") or ["0"])[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return
    if 0 <= limit < UNLIMITED:  # infinity is -1
        yield limit - used


def _reclaimable(group: Path) -> int:
    """Bytes of files kept in memory, which the system gives back before it calls memory short."""
    found = {}
    for line in _text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    names = ("active_file", "inactive_file")
    return sum(found.get(f"total_{name}", found.get(name, 0)) for name in names)  # version 1 counts groups within apart


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups that a controller may have limits in, innermost first."""
    for line in _text(PROC / "self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        # Where both versions are in use, the second has a folder of its own.
        roots = [CGROUPS / controllers, CGROUPS / controller] if controllers else [CGROUPS / "unified", CGROUPS]
        root = next(filter(Path.is_dir, roots), roots[-1])
        inner = root / path.lstrip("/")
        # Inside a container the path may be that of the host, which is not there: the root is then its own group.
        for folder in (inner, *inner.parents):
            if folder.is_dir():
                yield folder
            if folder == root:
                break


def _free_of_machine() -> int:
    for line in _text(PROC / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 4 << 30


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None
