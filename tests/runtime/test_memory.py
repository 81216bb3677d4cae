"""What loading sets aside, for any budget."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bossa.engine.pages import PagePool
from bossa.errors import RequestError
from bossa.runtime import memory
from bossa.runtime.memory import FEWEST_ROWS, MOST_PAGES, ROWS_OF_A_STEP, Room, fit, fixed, logit_rows


def manifest(page_bytes: int = 1000, row: int = 10, vocabulary: int = 100) -> Any:
    tables = (SimpleNamespace(offset=64, bytes=36),)
    return SimpleNamespace(
        page_bytes=page_bytes, page_size=32, arena_bytes_per_row=row, vocab_size=vocabulary, constants=tables
    )


def test_activations_logits_and_tables_are_counted():
    assert fixed(manifest(), 512, 3) == 512 * 10 + (3 + 127) * 100 * 4 + 100
    assert fixed(manifest(), 16, 3) == 16 * 10 + 16 * 100 * 4 + 100


def test_what_is_wanted_is_set_aside_where_there_is_room():
    assert fit(manifest(), 3, 65, 10**9) == Room(9, ROWS_OF_A_STEP)
    assert fit(manifest(), 1000, 32, 10**9) == Room(1000, 1000)


def test_the_budget_is_half_of_the_free_memory_by_default(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 2 * (fixed(manifest(), 512, 3) + 5000))
    assert fit(manifest(), 3, 65) == Room(5, 512)


@pytest.mark.parametrize(("weights", "budget"), [(0, 500), (400, 500), (700, 300), (2000, 125)])
def test_by_default_weights_that_leave_less_than_half_bound_the_budget(monkeypatch, weights, budget):
    free = fixed(manifest(), FEWEST_ROWS, 1) + 1000  # rows, and what is left for pages of a byte
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    assert memory._default_budget(weights) == budget
    monkeypatch.setattr(memory, "free_memory", lambda: 8 * free)
    assert fit(manifest(page_bytes=1), 1, 32 * 1000, weights=8 * free) == fit(manifest(page_bytes=1), 1, 32000, free)


def test_pages_go_first_then_rows_and_then_the_pages_of_one_sequence():
    model = manifest()
    assert fit(model, 3, 65, fixed(model, 512, 3) + 3000) == Room(3, 512)
    assert fit(model, 3, 65, fixed(model, 512, 3) + 2999) == Room(5, 256)  # the rows given up leave room for two more
    assert fit(model, 3, 65, fixed(model, FEWEST_ROWS, 3) + 3000) == Room(3, FEWEST_ROWS)
    assert fit(model, 3, 65, fixed(model, FEWEST_ROWS, 3) + 1000) == Room(1, FEWEST_ROWS)
    with pytest.raises(RequestError, match=r"^7,659 bytes of memory are too few: .*: allow 7,660 or more$"):
        fit(model, 3, 65, fixed(model, FEWEST_ROWS, 3) + 999)


@given(
    budget=st.integers(0, 10**7),
    sequences=st.integers(1, 2000),
    length=st.integers(1, 5000),
    page_bytes=st.integers(0, 5000),
    row=st.integers(0, 3000),
    vocabulary=st.integers(1, 5000),
)
def test_what_is_set_aside_is_never_more_than_the_budget(budget, sequences, length, page_bytes, row, vocabulary):
    model = manifest(page_bytes, row, vocabulary)
    try:
        room = fit(model, sequences, length, budget)
    except RequestError:
        assert fixed(model, FEWEST_ROWS, sequences) + page_bytes > budget
        return
    logits = 4 * vocabulary * logit_rows(room.max_rows, sequences)
    assert room.pages * page_bytes + room.max_rows * row + logits + 100 <= budget
    assert 1 <= room.pages <= sequences * -(-length // 32)


@pytest.mark.parametrize("page_bytes", [0, 64, 1 << 20])
@pytest.mark.parametrize(("sequences", "length"), [(2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (2**31 - 1, 32)])
def test_limits_near_two_gigabytes_make_no_giant_list(page_bytes: int, sequences: int, length: int):
    pages = fit(manifest(page_bytes), sequences, length, 1 << 45).pages
    assert 1 <= pages <= MOST_PAGES
    tracemalloc.start()
    try:
        PagePool(pages, 32)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
