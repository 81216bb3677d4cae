"""Threads that wait for torch's next operator."""

from __future__ import annotations

import os
import time

import pytest
import torch

from bossa.samba.causal.openmp import send_threads_away


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
def test_threads_are_sent_away_and_come_back():
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        x = torch.randn(1 << 20)
        expected = x.exp()
        working = threads()
        send_threads_away()
        deadline = time.monotonic() + 5
        while threads() > working - 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert threads() <= working - 2
        assert torch.equal(x.exp(), expected)
        assert threads() >= working
    finally:
        torch.set_num_threads(before)
