"""Drafts by prompt look-up: what is guessed, how much, and that guesses only change the number of steps."""

from __future__ import annotations

import pytest

from bossa.engine import Engine, Request, SamplingParams
from bossa.engine.speculation import Drafter, worth

HABIT = 11.0  # more than any other difference between two logits of the each program


def test_what_followed_the_longest_match_is_guessed():
    drafter = Drafter(3)
    assert drafter.draft([1, 2, 3, 4, 5, 9, 3, 7, 1, 2, 3], 9, 0.01) == [4, 5, 9]
    assert Drafter(3).draft([9, 3, 7, 8, 2, 3], 9, 0.01) == [7, 8, 2]


def test_the_last_occurrence_counts():
    assert Drafter(1).draft([3, 1, 3, 2, 3], 9, 0.01) == [2]


def test_without_a_match_nothing_is_guessed():
    assert Drafter(4).draft([1], 9, 0.01) == []
    assert Drafter(4).draft([1, 2, 3], 9, 0.01) == []


def test_a_repetition_goes_on():
    assert Drafter(7).draft([4, 1, 2, 3, 1, 2, 3], 9, 0.01) == [1, 2, 3, 1, 2, 3, 1]
    assert Drafter(3).draft([8, 8], 9, 0.01) == [8, 8, 8]


def test_a_growing_sequence_is_looked_at_as_it_grows():
    tokens = [1, 2, 3]
    drafter = Drafter(2)
    assert drafter.draft(tokens, 9, 0.01) == []
    tokens += [1, 2]
    assert drafter.draft(tokens, 9, 0.01) == [3, 1]
    tokens += [5, 1, 2]
    assert drafter.draft(tokens, 9, 0.01) == [5, 1]


def test_drafts_grow_where_guesses_hold_and_end_where_they_fail():
    tokens = [7, 7, 7, 7]
    drafter = Drafter(16)
    first = len(drafter.draft(tokens, 99, worth(1)))
    for _ in range(8):
        drafter.learn(held=4, failed=False)
    assert len(drafter.draft(tokens, 99, worth(1))) == 16 > first
    for _ in range(40):
        drafter.learn(held=0, failed=True)
    tried = [len(drafter.draft(tokens, 99, worth(1))) for _ in range(1000)]
    assert max(tried) == 1
    assert 10 <= sum(tried) <= 20  # now and then, as what comes may be easier


def test_a_guess_must_be_surer_the_more_sequences_share_a_step():
    assert worth(1) < worth(8) < worth(32) < 1
    tokens = [5, 6, 5, 6, 5]
    drafter = Drafter(8)
    for _ in range(5):
        drafter.learn(held=2, failed=False)
    lengths = [len(drafter.draft(tokens, 99, worth(sequences))) for sequences in (1, 8, 32)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


def run(each, speculate, prompts=([1, 2, 5],), new=30, habit=HABIT, **shape):
    program = each.Program(habit=habit, **shape)
    engine = Engine(program, batch_size=len(prompts))
    requests = [Request(i, prompt, SamplingParams(new, speculate=speculate)) for i, prompt in enumerate(prompts)]
    return program, {c.index: c.token_ids for c in engine.generate(requests)}


def test_what_can_be_guessed_takes_fewer_steps(each):
    plain, expected = run(each, 0)
    program, found = run(each, 8)
    assert found == expected
    assert len(plain.steps) == 30
    assert len(program.steps) <= 14


def test_what_cannot_be_guessed_takes_hardly_more_rows(each):
    plain, expected = run(each, 0, new=300, habit=0.0, max_seq_length=400, pages=100)
    program, found = run(each, 8, new=300, habit=0.0, max_seq_length=400, pages=100)
    assert found == expected
    assert sum(map(sum, program.steps)) < 1.2 * sum(map(sum, plain.steps))  # a row is about an eighth of a step


def test_guesses_are_checked_by_the_likeliest_tokens_alone_where_these_are_enough(each):
    program, _ = run(each, 8)
    assert program.greedy_steps == len(program.steps)


@pytest.mark.parametrize("new", [1, 2, 3, 9])
def test_no_row_is_run_for_a_token_that_could_not_be_taken(each, new):
    program, found = run(each, 8, prompts=([0, 2, 5, 6, 4, 1, 0, 2, 5],), new=new)
    assert len(found[0]) == new
    assert sum(map(sum, program.steps)) <= 9 + new - 1 + sum(len(step) for step in program.steps)
    assert max(map(sum, program.steps[1:]), default=0) <= new - 1


def test_prompts_go_before_guesses(each):
    program = each.Program(habit=HABIT, max_rows=6)
    engine = Engine(program, batch_size=2)
    first = Request(0, [0, 2, 5, 6, 4, 1], SamplingParams(30, speculate=8))
    engine.submit(first)
    while len(first.tokens) < 14:
        engine.step()
    assert max(map(sum, program.steps[1:])) > 1  # it guesses
    engine.submit(Request(1, [20] * 15, SamplingParams(2)))
    before = len(program.steps)
    for _ in range(3):
        engine.step()
    assert program.steps[before:] == [[1, 5]] * 3


def test_nobody_is_preempted_for_the_sake_of_a_guess(each):
    program = each.Program(pages=10, habit=HABIT)
    engine = Engine(program, batch_size=2)
    taken = []
    engine._scheduler._preempt = taken.append
    requests = [Request(i, [0, 2, 5, 6, 4, 1, 0, 2, 5], SamplingParams(11, speculate=8)) for i in range(2)]
    for completion in engine.generate(requests):
        assert completion.token_ids == each.greedy([0, 2, 5, 6, 4, 1, 0, 2, 5], 11, 40, eos=(), habit=HABIT)
    assert not taken
