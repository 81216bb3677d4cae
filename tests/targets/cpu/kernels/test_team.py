"""Tickets and barriers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_every_ticket_is_drawn_once_before_anyone_passes_the_barrier(
    threads: int, on_every_build: Callable[[str], list[ctypes.CDLL]]
) -> None:
    steps, rounds, tickets = 20, 30, 7
    for library in on_every_build("team"):
        drawn = np.zeros((steps, rounds, tickets), np.int32)
        late = library.run_team(threads, steps, rounds, tickets, ctypes.c_void_p(drawn.ctypes.data))
        assert late == 0
        assert np.all(drawn == 1)


def test_a_team_of_no_threads_is_a_team_of_one(on_every_build: Callable[[str], list[ctypes.CDLL]]) -> None:
    assert [library.team_size(0) for library in on_every_build("team")] == [1] * len(on_every_build("team"))
    assert on_every_build("team")[0].team_size(3) == 3
