"""Prompts with a common beginning: what is computed once, when, and that nothing wrong is ever read."""

from __future__ import annotations

import numpy as np
import pytest

from bossa.engine import Engine, Request, SamplingParams
from bossa.engine.prefix import extend_hashes
from bossa.engine.scoring import logits, score
from support.interruptions import run_cut_off

HEAD = [5, 1, 9, 9, 2, 7, 7, 7, 3, 20, 11, 12]  # three pages of the fake program


def run(engine, prompts, new=3, **more):
    requests = [Request(i, prompt, SamplingParams(new, **more)) for i, prompt in enumerate(prompts)]
    return {c.index: c.token_ids for c in engine.generate(requests)}


def greedy(fake, prompts, new=3):
    return {i: fake.greedy(prompt, new, 40, eos=()) for i, prompt in enumerate(prompts)}


def rows(program):
    return sum(map(sum, program.steps))


def test_names_are_those_of_all_tokens_up_to_the_end_of_a_page():
    names: list[bytes] = []
    extend_hashes(names, [1, 2, 3], 2)
    assert len(names) == 1
    extend_hashes(names, [1, 2, 3, 4, 5], 2)
    whole: list[bytes] = []
    extend_hashes(whole, [1, 2, 3, 4], 2)
    assert names == whole
    other: list[bytes] = []
    extend_hashes(other, [1, 1, 3, 4], 2)
    assert not set(other) & set(names)
    salted: list[bytes] = []
    extend_hashes(salted, [1, 2, 3, 4], 2, b"an adapter")
    assert not set(salted) & set(names)


def test_requests_with_another_adapter_share_nothing(fake):
    engine = Engine(fake.Program(), batch_size=4)
    first, second, third = (Request(i, HEAD, SamplingParams(1), salt=salt) for i, salt in enumerate((b"a", b"b", b"a")))
    for request in (first, second, third):
        list(engine.generate([request]))
    assert not set(first.block_hashes) & set(second.block_hashes)
    assert first.block_hashes == third.block_hashes
    assert [sum(step) for step in engine.program.steps] == [12, 12, 4]


def test_a_program_s_own_adapter_is_that_of_its_requests(fake):
    program = fake.Program()
    program.adapter_hash = b"an adapter"
    request = Request(0, HEAD, SamplingParams(1))
    list(Engine(program, batch_size=4).generate([request]))
    expected: list[bytes] = []
    extend_hashes(expected, HEAD, program.page_size, b"an adapter")
    assert request.block_hashes[:3] == expected


def test_a_later_request_runs_only_what_an_earlier_one_did_not(fake):
    program = fake.Program()
    engine = Engine(program, batch_size=2)
    first, second = [*HEAD, 1, 2], [*HEAD, 8]
    assert run(engine, [first], 1) == greedy(fake, [first], 1)
    assert program.steps == [[14]]
    assert run(engine, [second], 1) == greedy(fake, [second], 1)
    assert program.steps == [[14], [1]]


def test_the_last_token_of_a_prompt_always_runs(fake):
    program = fake.Program()
    engine = Engine(program, batch_size=1)
    assert run(engine, [HEAD], 1) == run(engine, [HEAD], 1) == greedy(fake, [HEAD], 1)
    assert program.steps == [[12], [4]]


def test_output_is_shared_too(fake):
    program = fake.Program()
    engine = Engine(program, batch_size=1)
    [answer] = run(engine, [HEAD], 9).values()
    before = rows(program)
    again = [*HEAD, *answer, 4]  # as the next turn of a conversation has it
    assert run(engine, [again], 1) == greedy(fake, [again], 1)
    assert rows(program) - before == len(again) - 20  # the last token of the answer never ran


def test_requests_that_arrive_together_compute_their_beginning_once(fake):
    program = fake.Program()
    engine = Engine(program, batch_size=4)
    prompts = [[*HEAD, i, i] for i in range(4)]
    assert run(engine, prompts, 1) == greedy(fake, prompts, 1)
    assert program.steps == [[14], [2, 2, 2]]


def test_those_that_have_nothing_to_wait_for_go_first(fake):
    program = fake.Program(max_rows=16)
    engine = Engine(program, batch_size=3)
    prompts = [[*HEAD, 1], [*HEAD, 2], [4, 4]]
    assert run(engine, prompts, 1) == greedy(fake, prompts, 1)
    assert program.steps == [[13, 2], [1]]


def test_a_long_beginning_is_waited_for_over_several_steps(fake):
    program = fake.Program(max_rows=5)
    engine = Engine(program, batch_size=3)
    prompts = [[*HEAD, 1], [*HEAD, 2], [4, 4, 4, 4, 4, 4, 4]]
    assert run(engine, prompts, 2) == greedy(fake, prompts, 2)
    assert rows(program) == 13 + 1 + 7 + 3


def test_a_running_request_that_is_removed_does_not_keep_others_waiting(fake):
    engine = Engine(fake.Program(max_rows=4), batch_size=2)
    requests = [Request(i, [*HEAD, i], SamplingParams(2)) for i in range(2)]
    for request in requests:
        engine.submit(request)
    engine.step()
    engine.abort(requests[:1])
    while engine.step() != requests[1:]:
        pass
    assert requests[1].output_ids == fake.greedy([*HEAD, 1], 2, 40, eos=())


def test_pages_that_nobody_holds_give_way_to_new_ones_the_longest_unused_first(fake):
    program = fake.Program(pages=8)
    engine = Engine(program, batch_size=1)
    one, two = [1] * 15, [2] * 15
    run(engine, [one, two], 1)
    run(engine, [one], 1)  # used again, so the other is the one to go
    before = rows(program)
    run(engine, [[7] * 15], 1)
    run(engine, [one], 1)
    assert rows(program) - before == 15 + 3
    assert (_kept(engine, one), _kept(engine, two)) == (3, 1)


def test_pages_that_a_waiting_request_will_share_stay_the_longest(fake):
    engine = Engine(fake.Program(pages=10), batch_size=1)
    one, two = [1] * 15, [2] * 15
    run(engine, [one, two], 1)
    for place, prompt in enumerate(([7] * 20, one)):  # the second waits for the first, which takes its memory
        engine.submit(Request(place, prompt, SamplingParams(1)))
    engine.step()
    assert (_kept(engine, one), _kept(engine, two)) == (3, 2)
    while engine._scheduler.unfinished:
        engine.step()


def _kept(engine, tokens):
    names: list[bytes] = []
    extend_hashes(names, tokens[:-1], 4)
    return engine._scheduler.pool.find(names)


def test_equal_sequences_come_to_hold_the_same_pages(fake):
    engine = Engine(fake.Program(), batch_size=2)
    requests = [Request(i, HEAD, SamplingParams(12)) for i in range(2)]
    for request in requests:
        engine.submit(request)
    for _ in range(10):
        engine.step()
    full = min(request.computed for request in requests) // 4
    assert full == 5
    assert requests[0].blocks[:full] == requests[1].blocks[:full]
    engine.abort(requests)
    assert engine._scheduler.pool.free_count == engine.program.pages


def test_a_preempted_request_takes_its_pages_up_again(fake):
    program = fake.Program(pages=12, max_rows=18)
    engine = Engine(program, batch_size=2)
    older, younger = Request(0, [1] * 9, SamplingParams(2)), Request(1, [2] * 9, SamplingParams(20))
    for request in (older, younger):
        engine.submit(request)
    engine.step()
    engine._scheduler._preempt(younger)
    assert not younger.blocks
    engine.step()
    assert program.steps[-1] == [1, 2]  # of ten tokens, eight were in full pages
    while engine._scheduler.unfinished:
        engine.step()
    assert younger.output_ids == fake.greedy([2] * 9, 20, 40, eos=())


def test_all_logits_of_a_prompt_are_computed_however_much_of_it_is_there(fake):
    program = fake.Program()
    engine = Engine(program, batch_size=1)
    run(engine, [HEAD], 2)
    expected = [fake.logits_of(HEAD[: t + 1]) for t in range(len(HEAD))]
    assert np.array_equal(logits(engine, HEAD), expected)
    assert np.array_equal(logits(engine, HEAD), expected)
    assert program.steps[-1] == [12]


def test_a_score_shares_the_prompt_before_the_first_position_that_it_reads(fake):
    program = fake.Program()
    engine = Engine(program, batch_size=1)
    alone = score(Engine(fake.Program(), batch_size=1), HEAD, [4, 5])
    assert score(engine, HEAD, [6, 7]) != alone
    assert score(engine, HEAD, [4, 5]) == alone
    assert program.steps == [[13], [5]]


@pytest.mark.parametrize("interrupted_step", [0, 1])
def test_nothing_that_a_cut_off_step_may_have_half_written_is_used_again(fake, interrupted_step):
    def interrupt(step):
        if step == interrupted_step:
            program.memory[:] = 123_456  # what was there before is gone too
            program.before_step = None
            raise KeyboardInterrupt

    program = fake.Program(before_step=interrupt)
    engine = Engine(program, batch_size=2)
    prompts = [[*HEAD, i] for i in range(4)]
    with pytest.raises(KeyboardInterrupt):
        run(engine, prompts)
    assert run(engine, prompts) == greedy(fake, prompts)


def test_a_step_cut_off_while_pages_are_named_leaves_no_wrong_name(fake):
    """An exception at each line that the naming and lending of pages runs through."""
    prompts = [[*HEAD, i] for i in range(3)]
    expected = list(greedy(fake, prompts, 5).values())
    line = 0
    while True:
        program = fake.Program(pages=11)
        engine = Engine(program, batch_size=2)
        requests = [Request(i, prompt, SamplingParams(5)) for i, prompt in enumerate(prompts)]
        for request in requests:
            engine.submit(request)
        lines = run_cut_off(engine, lambda file: file.endswith(("pages.py", "prefix.py", "scheduler.py")), line)
        while engine._scheduler.unfinished:
            engine.step()
        assert [request.output_ids for request in requests] == expected
        assert engine._scheduler.pool.free_count == 11
        if len(lines) <= line:
            break
        line += 11
    assert line > 200
