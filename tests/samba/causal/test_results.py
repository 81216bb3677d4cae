"""Logits that are kept, and the results made of them."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
import torch

from bossa.samba.causal.results import KeptLogits


@pytest.mark.parametrize("width", [3, mmap.PAGESIZE // 4, 2000])
def test_results_have_the_rows_so_far_and_never_change(width: int):
    """Widths of rows that lie many in a page, one in each, and across pages."""
    kept = KeptLogits(2, 5, width)
    expected = np.random.default_rng(0).normal(size=(2, 5, width)).astype(np.float32)
    results = []
    for counts in ([1, 0], [3, 2], [3, 5]):
        for number, count in enumerate(counts):
            kept.rows[number, :count] = expected[number, :count]
        results.append((counts, kept.result(counts)))
    results[1][1][0, 1] = 5.0
    kept.keep([2, 5])
    kept.rows[0, 2] = 9.0
    results.append(([3, 5], kept.result([3, 5])))
    for number, (counts, result) in enumerate(results):
        for sequence, count in enumerate(counts):
            rows = torch.from_numpy(expected[sequence].copy())
            rows[count:] = 0
            if number == 1 and sequence == 0:
                rows[1] = 5.0
            if number == 3 and sequence == 0:
                rows[2] = 9.0
            assert torch.equal(result[sequence], rows), (number, sequence)


def test_a_result_outlives_what_it_came_from_and_its_views():
    kept = KeptLogits(1, 4, 3000)
    kept.rows[:] = 2.0
    view = kept.result([4])[:, 1:3]
    del kept
    assert torch.equal(view, torch.full((1, 2, 3000), 2.0))


def test_a_result_takes_memory_only_for_what_is_looked_at():
    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE

    kept = KeptLogits(1, 1024, 50257)
    kept.rows[0, :4] = 1.0
    before = resident()
    results = [kept.result([4]) for _ in range(20)]
    assert all(float(result[0, 3, 7]) == 1.0 and float(result[0, 1023, 7]) == 0.0 for result in results)
    assert resident() - before < 20e6, "20 results of 206 MB"
