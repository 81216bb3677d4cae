"""Records as they arrive: taken without waiting, in order, with what ends them."""

from __future__ import annotations

import os
import threading

import pytest

from bossa.dataset.arrival import Arriving, AtHand, may_wait, source


def test_what_has_not_come_is_not_waited_for():
    gate = threading.Event()

    def items():
        yield 1
        gate.wait(10)
        yield 2

    arriving = Arriving(items())
    assert arriving.take(wait=True) == 1
    assert arriving.take(wait=False) is None
    gate.set()
    assert arriving.take(wait=True) == 2
    for _ in range(2):
        with pytest.raises(StopIteration):
            arriving.take(wait=True)


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise OSError("gone")

    arriving = Arriving(items())
    assert arriving.take(wait=True) == 1
    with pytest.raises(OSError, match="gone"):
        arriving.take(wait=True)


def test_no_more_than_a_few_are_read_ahead():
    read = []

    def items():
        for number in range(1000):
            read.append(number)
            yield number

    arriving = Arriving(items(), ahead=3)
    assert [arriving.take(wait=True) for _ in range(100)] == list(range(100))
    assert len(read) <= 100 + 3 + 2


def test_files_are_read_at_once_and_pipes_and_devices_beside_the_work(tmp_path):
    path = tmp_path / "a.jsonl"
    path.touch()
    os.mkfifo(tmp_path / "pipe")
    assert [may_wait(str(name)) for name in (path, tmp_path, tmp_path / "none")] == [False] * 3
    assert [may_wait(str(name)) for name in (tmp_path / "pipe", "/dev/zero")] == [True] * 2
    assert isinstance(source(iter([]), str(path)), AtHand)
    assert list(iter(lambda: source(iter([1]), str(path)).take(False), 1)) == []
