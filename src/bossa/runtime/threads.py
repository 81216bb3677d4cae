"""How many threads compute, and on which CPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bossa.checks.arguments import described, is_whole, iterated, plain, refuse, whole
from bossa.errors import RequestError
from bossa.host.resources import cores

FEWEST_AT_MOST = 64
"""Threads that may be asked for on any machine; on larger ones as many as four a CPU."""


def default_threads() -> int:
    """One a core that this process may use, or fewer where ``OMP_NUM_THREADS`` says so.

    More than that many would wait for each other; whoever wants them nevertheless says how many.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    limit = int(first) if first.isascii() and first.isdigit() and len(first) < 10 else 0
    return min(cores(), limit) if limit else cores()


def chosen_threads(threads: int | None, cpus: Sequence[int] | None) -> tuple[int | None, list[int]]:
    """How many threads are asked for, None where nobody says, and the CPUs to run on, none where none are named.

    Raises:
        RequestError: there are too many, the CPUs are not all there for this process, or they are not as many as
            ``threads``.
    """
    if threads is not None:
        threads = whole("threads", threads, 1)
        most = max(FEWEST_AT_MOST, 4 * (os.cpu_count() or 1))
        if threads > most:
            raise RequestError(
                f"threads is {described(threads)}, and at most {most} are allowed here: more than the"
                f" {cores()} that can run at once only wait for each other"
            )
    if cpus is None:
        return threads, []
    wanted = "a list of whole numbers"
    chosen = [plain(cpu) for cpu in iterated("cpus", plain(cpus, axes=1), wanted)]
    if not all(map(is_whole, chosen)):
        refuse("cpus", wanted, next(cpu for cpu in chosen if not is_whole(cpu)))
    if not hasattr(os, "sched_getaffinity"):
        raise RequestError("this system cannot pin threads to CPUs: leave cpus out")
    chosen = list(dict.fromkeys(map(int, chosen)))
    strangers = sorted(set(chosen) - os.sched_getaffinity(0))
    if strangers or not chosen:
        raise RequestError(
            f"cpus names {listed(strangers) or 'none'}, and this process may run on"
            f" {listed(sorted(os.sched_getaffinity(0)))}: choose among these"
        )
    if threads is not None and threads != len(chosen):
        raise RequestError(f"threads is {threads}, and cpus names {len(chosen)}: leave one of them out")
    return len(chosen), chosen


def listed(cpus: Sequence[int]) -> str:
    """Numbers of CPUs in words."""
    return ", ".join(map(described, cpus[:16])) + (", …" if len(cpus) > 16 else "")
