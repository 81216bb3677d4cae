"""What ops keep of a sequence, summed up."""

from __future__ import annotations

from bossa.ir.state import StateSpec, totals

ATTENTION = StateSpec("paged", 96, rewinds=True)
CONVOLUTION = StateSpec("recurrent", 80, rewinds=False, draft_bytes=40)


def test_a_program_keeps_what_its_ops_keep_together():
    found = totals([ATTENTION, CONVOLUTION, ATTENTION, CONVOLUTION])
    assert (found.position_bytes, found.sequence_bytes, found.draft_bytes) == (192, 160, 80)


def test_a_slot_has_room_for_guesses_and_is_aligned():
    found = totals([CONVOLUTION, CONVOLUTION])
    assert [found.slot_bytes(drafts) for drafts in (0, 1, 8)] == [192, 256, 832]
    assert found.layout(8) == {"state_bytes": 832, "state_drafts": 8}


def test_a_program_without_recurrent_state_has_no_fields_of_it():
    assert totals([ATTENTION]).layout(8) == {}
    assert totals([]).slot_bytes(8) == 0
