"""Snapshots of recurrent state: where they are taken, who starts from them, and what is computed again without them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bossa.engine import Engine, Request, SamplingParams
from bossa.engine.scoring import logits, score
from bossa.engine.snapshots import SEQUENCES_A_BLOCK, aim_of_completion, common
from bossa.errors import RuntimeFailure
from support.interruptions import run_cut_off

HEAD = [5, 1, 9, 9, 2, 7, 7, 7, 3, 20, 11, 12]  # three pages of the fake program
LONG = [*HEAD, 4, 4, 8, 1, 2, 2]  # four pages and two tokens


def run(engine, prompts, new=3, **more):
    requests = [Request(i, prompt, SamplingParams(new, **more)) for i, prompt in enumerate(prompts)]
    return {c.index: c.token_ids for c in engine.generate(requests)}


def greedy(kind, prompts, new=3, habit=0.0):
    return {i: kind.greedy(prompt, new, 40, eos=(), habit=habit) for i, prompt in enumerate(prompts)}


def rows(program):
    return sum(map(sum, program.steps))


@given(st.lists(st.integers(0, 1), max_size=6), st.lists(st.integers(0, 1), max_size=6))
def test_two_sequences_have_in_common_what_they_begin_with(one, other):
    hashes = [[bytes(tokens[: count + 1]) for count in range(len(tokens))] for tokens in (one, other)]
    expected = 0
    while expected < min(len(one), len(other)) and one[expected] == other[expected]:
        expected += 1
    assert common(*hashes) == expected


def test_a_long_prompt_leaves_a_snapshot_at_its_last_pages_end(recurrent):
    program = recurrent.Program(max_rows=32)
    engine = Engine(program, batch_size=1)
    assert run(engine, [LONG], 1) == greedy(recurrent, [LONG], 1)
    assert program.steps == [[16], [2]]
    other = [*LONG[:16], 9]
    assert run(engine, [other], 1) == greedy(recurrent, [other], 1)
    assert program.steps[2:] == [[1]]


def test_a_short_prompt_that_nobody_shares_runs_in_one_step(recurrent):
    program = recurrent.Program()
    assert run(Engine(program, batch_size=1), [HEAD], 1) == greedy(recurrent, [HEAD], 1)
    assert program.steps == [[12]]
    assert not program.copies


def test_the_next_turn_starts_at_the_last_pages_end_of_the_one_before(recurrent):
    program = recurrent.Program()
    engine = Engine(program, batch_size=1)
    [answer] = run(engine, [HEAD], 9).values()
    before = rows(program)
    again = [*HEAD, *answer, 4]
    assert run(engine, [again], 1) == greedy(recurrent, [again], 1)
    assert rows(program) - before == len(again) - 20  # the last token of the answer never ran
    assert len(program.copies) == 3  # at 16 and, in its place, at 20; and back


def test_requests_that_wait_start_where_they_part_from_one_that_runs(recurrent):
    program = recurrent.Program()
    engine = Engine(program, batch_size=4)
    prompts = [[*HEAD, i, i] for i in range(4)]
    assert run(engine, prompts, 1) == greedy(recurrent, prompts, 1)
    assert program.steps == [[12], [2, 2, 2, 2]]


def test_each_starts_where_it_parts(recurrent):
    program = recurrent.Program(max_rows=64)
    engine = Engine(program, batch_size=3)
    prompts = [[*HEAD, 1], [*HEAD[:8], 2], [*HEAD[:4], 3]]
    assert run(engine, prompts, 1) == greedy(recurrent, prompts, 1)
    assert program.steps == [[4], [4, 1], [5, 1]]


def test_a_beginning_that_is_met_again_gets_a_snapshot_on_its_second_way(recurrent):
    program = recurrent.Program()
    engine = Engine(program, batch_size=1)
    prompts = [[*HEAD, i] for i in range(3)]
    for prompt in prompts:
        assert run(engine, [prompt], 1) == greedy(recurrent, [prompt], 1)
    assert program.steps == [[13], [12], [1], [1]]


def test_the_samples_of_a_prompt_share_it(recurrent):
    program = recurrent.Program()
    engine = Engine(program, batch_size=3)
    params = SamplingParams(4, temperature=1.0)
    found = list(engine.generate([Request(0, HEAD, params, sample=sample) for sample in range(3)]))
    assert program.steps[:2] == [[8], [4, 4, 4]]
    for completion in found:
        alone = Engine(recurrent.Program(), batch_size=1)
        [expected] = alone.generate([Request(0, HEAD, params, sample=completion.sample)])
        assert completion.token_ids == expected.token_ids
    assert len({tuple(completion.token_ids) for completion in found}) == 3


def test_the_more_sequences_run_the_fewer_snapshots_each_leaves():
    request = Request(0, HEAD)
    request.computed, request.snapshot_at = 18, 16
    aims = [aim_of_completion(request, running, 4) for running in (1, SEQUENCES_A_BLOCK, 2 * SEQUENCES_A_BLOCK)]
    assert aims == [20, 20, 24]
    request.snapshot_at = 4  # long ago
    assert aim_of_completion(request, 2 * SEQUENCES_A_BLOCK, 4) == 20


def test_a_snapshot_that_a_waiting_request_will_start_from_stays_the_longest(recurrent):
    program = recurrent.Program(state_slots=3)
    engine = Engine(program, batch_size=1)
    one, two = [1] * 18, [2] * 18
    run(engine, [one, two], 1)
    for place, prompt in enumerate(([7] * 18, one)):  # the second waits for the first, which takes a slot
        engine.submit(Request(place, prompt, SamplingParams(1)))
    while engine._scheduler.unfinished:
        engine.step()
    assert program.steps[-1] == [2]


def test_without_bytes_in_pages_no_beginning_is_forgotten_to_spare_them(recurrent):
    """Where there are, some pages of the first prompt, which has more than are kept unasked, have been lent again."""
    program = recurrent.Program(pages=300, max_seq_length=400, max_rows=400)
    engine = Engine(program, batch_size=1)
    for prompt in ([1] * 162, [2] * 162, [1] * 162):
        run(engine, [prompt], 1)
    assert rows(program) == (326 if recurrent.name == "state" else 486)


def test_with_no_slot_to_spare_everything_is_computed(recurrent):
    program = recurrent.Program(state_slots=2)
    engine = Engine(program, batch_size=2)
    prompts = [[*LONG, i] for i in range(4)]
    assert run(engine, prompts, 5) == greedy(recurrent, prompts, 5)
    assert max(map(len, program.steps)) == 2


def test_no_more_sequences_run_than_there_are_slots(recurrent):
    program = recurrent.Program(state_slots=2)
    prompts = [[i, 1] for i in range(5)]
    assert run(Engine(program, batch_size=5), prompts) == greedy(recurrent, prompts)
    assert max(map(len, program.steps)) == 2


def test_a_preempted_request_goes_on_from_its_last_snapshot(recurrent):
    program = recurrent.Program(max_rows=32)
    request = Request(0, LONG, SamplingParams(12))
    request.stream = True  # a token a step
    engine = Engine(program, recurrent.Tokenizer(), batch_size=2, detokenizer=recurrent.Detokenizer)
    engine.submit(request)
    while len(request.tokens) < 23:
        engine.step()
    engine._scheduler._preempt(request)
    assert request.slot == -1
    engine.step()
    assert program.steps[-1] == [3]  # of 22 tokens that had run, 20 are in a snapshot
    while engine._scheduler.unfinished:
        engine.step()
    assert request.output_ids == recurrent.greedy(LONG, 12, 40, eos=())


def test_guesses_that_held_are_replayed_and_no_more_are_made_than_there_is_room_for(recurrent):
    program = recurrent.Program(habit=11.0)
    engine = Engine(program, batch_size=1)
    prompt = [1, 2, 5]
    assert run(engine, [prompt], 30, speculate=8) == greedy(recurrent, [prompt], 30, habit=11.0)
    assert program.replayed > 5
    assert max(map(sum, program.steps[1:])) <= 1 + program.state_drafts
    assert len(program.copies) >= 5  # at the ends of pages, past which no guess leads


def test_all_logits_of_a_prompt_are_computed_and_a_score_starts_before_what_it_reads(recurrent):
    program = recurrent.Program(max_rows=32)
    engine = Engine(program, batch_size=1)
    expected = [recurrent.logits_of(LONG[: t + 1], 0.0) for t in range(len(LONG))]
    assert np.array_equal(logits(engine, LONG), expected)
    assert np.array_equal(logits(engine, LONG), expected)
    alone = score(Engine(recurrent.Program(), batch_size=1), LONG, [4, 5])
    assert score(engine, LONG, [6, 7]) != alone
    before = rows(program)
    assert score(engine, LONG, [4, 5]) == alone
    assert rows(program) - before == 3


def test_logits_that_are_no_numbers_fail_one_request_though_state_has_moved(recurrent):
    """The step cannot be run again: all that was kept is thrown away, and the others get what they get alone."""

    class Broken(recurrent.AheadProgram):
        def step(self, tokens, positions, starts, tables, logit_rows, states):
            found = super().step(tokens, positions, starts, tables, logit_rows, states)
            found[(np.asarray(tokens) == 23)[logit_rows]] = np.nan
            return found

    prompts = [[1, 2, 4], [7, 7, 23], [6, 7, 8, 9, 1]]
    for repeated in (prompts, prompts[::-1], [[1, 2], [8, 23]]):
        engine = Engine(Broken(), batch_size=3)
        requests = [Request(i, prompt, SamplingParams(9)) for i, prompt in enumerate(repeated)]
        for request in requests:
            engine.submit(request)
        failed: list[Request] = []
        while engine._scheduler.unfinished:
            engine.step(failed)
        for request in requests:
            prompt = request.prompt_token_ids
            expected = [] if 23 in prompt else recurrent.greedy(prompt, 9, 40, eos=(23,))
            assert request.output_ids == expected
            assert isinstance(request.error, RuntimeFailure) == (len(expected) < 9)
        assert failed
        assert run(engine, [[1, 2, 4]], 1) == greedy(recurrent, [[1, 2, 4]], 1)
        assert engine.program.greedy_steps > 1
        assert not engine._steps.needs_logits
        assert engine._scheduler.states.free_count == engine.program.state_slots


@pytest.mark.parametrize("when", ["before_step", "during_step"])
@pytest.mark.parametrize("interrupted_step", [0, 1, 2, 4])
def test_state_that_a_cut_off_step_may_have_moved_is_not_used_again(recurrent, when, interrupted_step):
    def interrupt(step):
        if step == interrupted_step:
            setattr(program, when, None)
            raise KeyboardInterrupt

    program = recurrent.Program()
    engine = Engine(program, batch_size=2)
    setattr(program, when, interrupt)
    prompts = [[*LONG, i] for i in range(4)]
    requests = [Request(i, prompt, SamplingParams(5, speculate=2)) for i, prompt in enumerate(prompts)]
    for request in requests:
        engine.submit(request)
    cuts = 0
    while engine._scheduler.unfinished:
        try:
            engine.step()
        except KeyboardInterrupt:
            cuts += 1
    assert cuts == 1
    assert [request.output_ids for request in requests] == list(greedy(recurrent, prompts, 5).values())


def test_a_step_cut_off_while_state_is_lent_or_copied_leaves_nothing_wrong(recurrent):
    """An exception at every few lines that lending and snapshots run through."""
    prompts = [[*HEAD, i] for i in range(3)]
    expected = list(greedy(recurrent, prompts, 5).values())
    line = 0
    while True:
        program = recurrent.Program(pages=11, state_slots=4)
        engine = Engine(program, batch_size=2)
        requests = [Request(i, prompt, SamplingParams(5)) for i, prompt in enumerate(prompts)]
        for request in requests:
            engine.submit(request)
        lines = run_cut_off(engine, lambda file: file.endswith(("states.py", "snapshots.py", "scheduler.py")), line)
        while engine._scheduler.unfinished:
            engine.step()
        assert [request.output_ids for request in requests] == expected
        assert engine._scheduler.states.free_count == 4
        if len(lines) <= line:
            break
        line += 17
    assert line > 200
