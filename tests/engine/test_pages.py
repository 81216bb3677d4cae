"""The page pool."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bossa.engine.pages import PagePool


@given(st.integers(1, 20), st.lists(st.integers(-5, 8), max_size=30))
def test_no_page_is_lent_twice_and_none_is_lost(pages, moves):
    pool = PagePool(pages, 4)
    lent = []
    for move in moves:
        if move < 0 and lent:
            pool.free(lent.pop(move % len(lent)))
        elif 0 <= move <= pool.free_count:
            lent.append(pool.alloc(move))
        ids = [page for group in lent for page in group]
        assert len(ids) == len(set(ids))
        assert set(ids) <= set(range(pages))
        assert len(ids) + pool.free_count == pages
    pool.reset()
    assert sorted(pool.alloc(pages)) == list(range(pages))


def test_a_page_that_is_not_lent_cannot_come_back():
    pool = PagePool(3, 4)
    ids = pool.alloc(2)
    pool.free(ids)
    with pytest.raises(KeyError):
        pool.free(ids[:1])
    with pytest.raises(IndexError):
        pool.alloc(4)


def test_positions_are_rounded_up_to_pages():
    pool = PagePool(3, 4)
    assert [pool.pages_for(positions) for positions in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_a_named_page_is_lent_to_all_who_ask_and_kept_when_the_last_gives_it_back():
    pool = PagePool(3, 4)
    [page] = pool.alloc(1)
    assert pool.register(page, b"a") == page
    assert pool.find([b"a", b"b"]) == 1
    assert pool.share([b"a"]) == [page]
    pool.free([page])
    assert pool.free_count == 2
    pool.free([page])
    assert pool.free_count == 3
    assert pool.share([b"a"]) == [page]
    with pytest.raises(KeyError):
        pool.share([b"b"])


def test_a_second_page_of_a_name_gives_way_to_the_first():
    pool = PagePool(2, 4)
    first, second = pool.alloc(2)
    pool.register(first, b"a")
    assert pool.register(second, b"a") == first
    assert pool.free_count == 1
    pool.free([first])
    pool.free([first])
    assert pool.free_count == 2


def test_blank_pages_are_lent_first_and_then_the_longest_unused():
    pool = PagePool(4, 4)
    a, b, c = pool.alloc(3)
    for page, name in ((a, b"a"), (b, b"b"), (c, b"c")):
        pool.register(page, name)
    pool.free([a, b])  # b stands behind a, so it goes first
    pool.free([c])
    assert pool.alloc(1) == [3]
    assert pool.alloc(2) == [b, a]
    assert pool.find([b"a"]) == pool.find([b"b"]) == 0
    assert pool.find([b"c"]) == 1


def named(pool: PagePool, name: bytes) -> int:
    """A page with a name, lent and given back."""
    [page] = pool.alloc(1)
    pool.register(page, name)
    pool.free([page])
    return page


def test_beyond_a_number_pages_that_nobody_asked_for_again_are_lent_before_new_ones():
    pool = PagePool(10, 4, cold_pages=3)
    assert [named(pool, bytes([i])) for i in range(3)] == [0, 1, 2]
    pool.free(pool.share([bytes([0])]))  # asked for: kept beside the three
    assert [named(pool, bytes([3 + i])) for i in range(4)] == [3, 1, 2, 3]
    assert pool.find([bytes([0])]) == 1
    assert [pool.find([bytes([i])]) for i in range(1, 7)] == [0, 0, 0, 1, 1, 1]
    assert pool.free_count == 10


def test_more_are_kept_once_one_was_asked_for_that_had_been_forgotten():
    pool = PagePool(10, 4, cold_pages=1)
    assert [named(pool, name) for name in (b"a", b"b", b"c")] == [0, 0, 0]
    assert pool.find([b"b"]) == pool.find([b"b"]) == 0  # one miss
    assert [named(pool, name) for name in (b"d", b"e", b"f")] == [1, 0, 1]
    assert pool.find([b"x"]) == 0  # never known: no reason to keep more
    assert pool.cold_pages == 2


def test_what_waits_for_a_page_counts_as_asking_for_it():
    pool = PagePool(10, 4, cold_pages=1)
    named(pool, b"a")
    pool.touch([b"a"])
    assert named(pool, b"b") == 1
    assert named(pool, b"c") == 1
    assert pool.find([b"a"]) == pool.find([b"c"]) == 1


def test_with_no_new_page_left_the_longest_unused_is_lent_whoever_asked_for_it():
    pool = PagePool(3, 4, cold_pages=5)
    for name in (b"a", b"b", b"c"):
        named(pool, name)
    pool.free(pool.share([b"a"]))
    pool.free(pool.share([b"b"]))
    assert pool.alloc(2) == [2, 0]


def test_a_reset_keeps_to_the_memory_that_is_there():
    pool = PagePool(10, 4)
    pool.alloc(3)
    pool.reset()
    assert sorted(pool.alloc(3)) == [0, 1, 2]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=60), st.integers(0, 4))
def test_what_is_found_by_name_was_given_that_name_and_no_page_is_lost(moves, cold):
    pool = PagePool(6, 4, cold_pages=cold)
    lent: list[int] = []
    holds: dict[int, bytes] = {}
    for move, what in moves:
        if move == 0 and pool.free_count:
            [page] = pool.alloc(1)
            lent.append(page)
            holds.pop(page, None)
        elif move == 1 and lent:
            page, name = lent.pop(what % len(lent)), bytes([what])
            if page not in holds:
                page = pool.register(page, name)
                assert holds.setdefault(page, name) == name
            lent.append(page)
        elif move == 2 and lent:
            pool.free([lent.pop(what % len(lent))])
        elif move == 3 and pool.find([bytes([what])]):
            [page] = pool.share([bytes([what])])
            assert holds[page] == bytes([what])
            lent.append(page)
        assert len(set(lent)) + pool.free_count == pool.pages


def test_a_reset_forgets_every_name():
    pool = PagePool(2, 4)
    pool.register(pool.alloc(1)[0], b"a")
    pool.reset()
    assert pool.find([b"a"]) == 0
    assert pool.free_count == 2
