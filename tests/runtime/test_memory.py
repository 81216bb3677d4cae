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


def manifest(page_bytes: int = 1000, row: int = 10, vocabulary: int = 100, state_bytes: int = 0) -> Any:
    tables = (SimpleNamespace(offset=64, bytes=36),)
    return SimpleNamespace(
        page_bytes=page_bytes,
        page_size=32,
        arena_bytes_per_row=row,
        vocab_size=vocabulary,
        constants=tables,
        state_bytes=state_bytes,
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
    state_bytes=st.just(0) | st.integers(1, 100_000),
)
def test_what_is_set_aside_is_never_more_than_the_budget(
    budget, sequences, length, page_bytes, row, vocabulary, state_bytes
):
    model = manifest(page_bytes, row, vocabulary, state_bytes)
    try:
        room = fit(model, sequences, length, budget)
    except RequestError:
        assert fixed(model, FEWEST_ROWS, sequences) + page_bytes + state_bytes > budget
        return
    logits = 4 * vocabulary * logit_rows(room.max_rows, sequences)
    taken = room.pages * page_bytes + room.state_slots * state_bytes
    assert taken + room.max_rows * row + logits + 100 <= budget
    assert 1 <= room.pages <= sequences * -(-length // 32)
    assert bool(state_bytes) <= room.state_slots <= bool(state_bytes) * (sequences + max(32, 2 * sequences))


@pytest.mark.parametrize("page_bytes", [0, 1000])
def test_recurrent_state_has_a_place_for_each_sequence_and_some_snapshots(page_bytes: int):
    assert fit(manifest(page_bytes, state_bytes=640), 3, 65, 10**9) == Room(9, 512, 3 + 32)
    assert fit(manifest(page_bytes, state_bytes=640), 40, 65, 10**9) == Room(120, 512, 40 + 80)


def test_little_memory_goes_to_the_state_of_as_many_sequences_as_half_of_it_holds():
    model = manifest(state_bytes=640)
    step = fixed(model, 512, 8)
    assert fit(model, 8, 32, step + 8000) == Room(3, 512, 6 + 1)
    assert fit(manifest(0, state_bytes=640), 8, 32, step + 8000) == Room(8, 512, 8 + 1)
    assert fit(manifest(0, state_bytes=640), 8, 32, step + 3000) == Room(8, 512, 4)


def test_too_little_memory_for_recurrent_state_says_so():
    model = manifest(state_bytes=640)
    needed = fixed(model, FEWEST_ROWS, 3) + 1640
    assert fit(model, 3, 65, needed) == Room(1, FEWEST_ROWS, 1)
    with pytest.raises(
        RequestError,
        match=r"^8,299 bytes of memory are too few: one page of keys and values takes 1,000, recurrent state of one"
        r" sequence 640, and a step of 16 rows 6,660: allow 8,300 or more$",
    ):
        fit(model, 3, 65, needed - 1)


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
