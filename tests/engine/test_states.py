"""The pool of state slots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bossa.engine.states import StatePool


class Slots:
    """A pool over slots that hold a number each."""

    def __init__(self, count: int) -> None:
        self.held = [0] * count
        self.pool = StatePool(count, self.copy)

    def copy(self, source: int, target: int) -> None:
        assert source != target
        self.held[target] = self.held[source]


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 6)), max_size=60))
def test_what_is_started_from_is_what_was_kept_and_no_slot_is_lost_or_lent_twice(count, moves):
    slots, lent, kept, clock = Slots(count), [], {}, 100
    pool = slots.pool
    for move, one, other in moves:
        clock += 1
        block_hash = bytes([one])
        if move == 0 and pool.free_count:
            found = pool.find([block_hash])
            slot = pool.take(block_hash if found else None)
            assert slot not in lent
            if found:
                assert slots.held[slot] == kept[one]
            lent.append(slot)
        elif move == 1 and lent:
            pool.give_back(lent.pop(one % len(lent)))
        elif move == 2 and lent:
            slot = lent[other % len(lent)]
            had = pool.find([block_hash])
            slots.held[slot] = clock
            pool.keep(slot, block_hash, bytes([other]))
            if not had:
                kept[one] = clock
        elif move == 3 and pool.find([block_hash]):
            pool.touch(block_hash)
        assert len(set(lent)) == len(lent)
        assert len(lent) + pool.free_count == count
    pool.reset()
    assert sorted(pool.take() for _ in range(count)) == list(range(count))


def test_the_last_snapshot_of_a_beginning_is_found_with_gaps_before_it():
    pool = Slots(4).pool
    slot = pool.take()
    pool.keep(slot, b"b")
    assert [pool.find(hashes) for hashes in ([], [b"a"], [b"a", b"b"], [b"a", b"b", b"c"])] == [0, 0, 2, 2]


def test_the_snapshot_longest_unused_gives_way():
    pool = Slots(3).pool
    slot = pool.take()
    pool.keep(slot, b"a")
    pool.keep(slot, b"b")
    pool.touch(b"a")
    pool.keep(slot, b"c")
    assert [pool.find([name]) for name in (b"a", b"b", b"c")] == [1, 0, 1]
    assert pool.free_count == 2
    pool.take()
    assert [pool.find([name]) for name in (b"a", b"c")] == [0, 1]


def test_a_snapshot_in_the_last_free_slot_is_moved_on_itself():
    slots = Slots(2)
    one = slots.pool.take()
    slots.held[one] = 7
    slots.pool.keep(one, b"a")
    two = slots.pool.take(b"a")
    assert (two != one, slots.held[two], slots.pool.find([b"a"])) == (True, 7, 0)
    with pytest.raises(IndexError, match="all 2 state slots are lent"):
        slots.pool.take()
    slots.pool.keep(one, b"b")  # there is no room, and nothing happens
    assert slots.pool.find([b"b"]) == 0


def test_a_later_snapshot_takes_the_place_of_an_earlier_one_unless_somebody_started_there():
    pool = Slots(4).pool
    slot = pool.take()
    pool.keep(slot, b"a")
    pool.keep(slot, b"b", instead=b"a")
    assert [pool.find([name]) for name in (b"a", b"b")] == [0, 1]
    pool.give_back(pool.take(b"b"))
    pool.keep(slot, b"c", instead=b"b")
    assert [pool.find([name]) for name in (b"b", b"c")] == [1, 1]


def test_a_snapshot_that_somebody_starts_from_counts_as_just_used():
    pool = Slots(4).pool
    slot = pool.take()
    for name in (b"a", b"b"):
        pool.keep(slot, name)
    pool.take(b"a")
    pool.keep(slot, b"c")
    assert [pool.find([name]) for name in (b"a", b"b", b"c")] == [1, 0, 1]


def test_a_slot_that_is_not_lent_cannot_come_back_nor_a_snapshot_be_taken_up_that_is_not_there():
    pool = Slots(2).pool
    slot = pool.take()
    pool.give_back(slot)
    with pytest.raises(KeyError):
        pool.give_back(slot)
    with pytest.raises(KeyError):
        pool.take(b"a")
