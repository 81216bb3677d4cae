"""How many threads compute where nobody says, and what may be asked for."""

from __future__ import annotations

import os

import numpy as np
import pytest

from bossa.errors import RequestError
from bossa.runtime import threads
from bossa.runtime.threads import chosen_threads, default_threads


@pytest.mark.parametrize(
    ("variable", "expected"),
    [(None, 6), ("", 6), ("2", 2), (" 3 ", 3), ("4,2", 4), ("100", 6), ("0", 6), ("-1", 6), ("x", 6), ("9" * 5000, 6)],
)
def test_one_thread_a_core_computes_or_fewer_by_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, expected: int
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert default_threads() == expected
    assert chosen_threads(5, None) == (5, [])  # who says a number gets it


def test_many_more_threads_than_can_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert chosen_threads(64, None) == (64, [])
    for number in (65, 100_000, 10**400):
        with pytest.raises(RequestError, match=r"^threads is .*, and at most 64 are allowed here: more than the"):
            chosen_threads(number, None)
    monkeypatch.setattr(os, "cpu_count", lambda: 100)
    assert chosen_threads(400, None) == (400, [])


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system cannot pin threads to CPUs")
def test_cpus_are_numbers_of_any_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    usable = min(os.sched_getaffinity(0))
    assert chosen_threads(None, np.array([usable, usable])) == (1, [usable])  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="cpus names -1, a huge number, and this process may run on"):
        chosen_threads(None, [-1, 10**400])
