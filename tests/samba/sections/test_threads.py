"""Modules traced by several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from bossa.samba.sections.structure import describe
from bossa.samba.sections.trace import trace


def test_threads_that_trace_modules_get_what_they_would_alone() -> None:
    """Hooks on all modules and modes of the process name who draws and who is called: two at once mix them."""
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.ReLU()) for _ in range(8)))
    inputs = [torch.randn(2, 4)]

    def lines(_: int) -> list[str]:
        return describe(trace(model, inputs, ["x"], joint=True), [])

    expected = lines(0)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lines, range(12))) == [expected] * 12
