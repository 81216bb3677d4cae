"""The limits of a machine: measured by a library that is compiled on the spot."""

from __future__ import annotations

import pytest

from bossa.bench import limits
from bossa.bench.limits import Limits, measure_limits


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(limits, "LARGEST", limits.SMALLEST)


@pytest.mark.parametrize("target", ["portable", None])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_limit_is_measured_on_any_machine(threads, target, monkeypatch):
    if target is not None:
        monkeypatch.setattr(limits, "host_target", lambda: target)
    found = measure_limits(threads, 0.05)
    assert found.threads == threads
    # Orders of magnitude: a computer of this century, and no loop that the compiler took away.
    assert 1e8 < found.read_bytes_per_s < 1e13
    assert 1e8 < found.read_bytes_per_s_one < 1e12
    assert found.operations_per_s.keys() == {"fp32", "int16", "int8"}
    assert all(1e7 < rate < 1e14 for rate in found.operations_per_s.values())
    assert found.barrier_s > 0
    assert "stream" in found.pattern
    if threads == 1:
        assert found.read_bytes_per_s == found.read_bytes_per_s_one


def test_narrower_integers_are_not_slower():
    found = measure_limits(1, 0.3).operations_per_s
    assert found["int8"] > found["int16"]  # twice as many in a register; a margin of two for a busy machine


def test_of_two_measurements_the_better_one_counts_limit_by_limit():
    one = Limits("portable", 2, 10.0, "first", 6.0, "first", {"fp32": 5.0, "int8": 1.0}, 2e-6)
    two = Limits("portable", 2, 9.0, "second", 7.0, "second", {"fp32": 4.0, "int8": 2.0}, 1e-6)
    best = Limits("portable", 2, 10.0, "first", 7.0, "second", {"fp32": 5.0, "int8": 2.0}, 1e-6)
    assert one.best(two) == two.best(one) == best
