"""Cores and memory that this process may use: those of the machine, less what its container and affinity withhold.

Control groups of both versions are read as Linux documents them (``cpu.max`` and ``memory.max``; ``cpu.cfs_quota_us``
and ``memory.limit_in_bytes``), from the process's own group up to the root: the tightest limit holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60
"""Version 1 writes "no limit" as a number close to 2^63."""


def cores() -> int:
    """Threads that can run at once: CPUs of the affinity mask, at most as many as the quota pays for in full."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    quota = _quota()
    return count if quota is None else max(1, min(count, int(quota)))


def free_memory() -> int:
    """Bytes that can be had without swapping or passing a limit, as far as the system tells."""
    return max(0, min([_free_of_machine(), *_free_of_groups()]))


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
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most = _number(group / limit)
            if most is not None and most < UNLIMITED:
                yield most - (_number(group / usage) or 0) + _reclaimable(group)


def _reclaimable(group: Path) -> int:
    """Bytes of files kept in memory, which the system gives back before it calls memory short."""
    found = {}
    for line in _text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found.get("total_inactive_file", found.get("inactive_file", 0))


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups that a controller may have limits in, innermost first."""
    for line in _text(PROC / "self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controllers if controllers else CGROUPS
        if controllers and not root.is_dir():
            root = CGROUPS / controller
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
