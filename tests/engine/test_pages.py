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
