"""The engine against an oracle that decodes one sequence at a time and knows nothing of pages or batches."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.engine import Completion, Engine, Request, SamplingParams
from bossa.engine.scoring import logits
from bossa.errors import RequestError, RuntimeFailure
from support.interruptions import run_cut_off


def params(fake, max_new_tokens=8, **more):
    return SamplingParams(max_new_tokens=max_new_tokens, eos_token_ids=(fake.EOS,), **more)


def assert_no_page_is_lent(engine):
    assert engine._scheduler.pool.free_count == engine.program.pages
    assert not engine._scheduler.running
    assert not engine._scheduler.waiting
    assert not engine._scheduler.unfinished


jobs = st.lists(
    st.tuples(st.lists(st.integers(0, 28), min_size=1, max_size=24), st.integers(1, 16)), min_size=1, max_size=8
)
shapes = st.tuples(
    st.integers(10, 40),  # pages: at least what one sequence of 40 positions needs
    st.integers(1, 12),  # rows a step
    st.integers(1, 6),  # sequences
)


@settings(max_examples=150, deadline=None)
@given(jobs=jobs, shape=shapes)
def test_every_request_gives_the_tokens_that_it_gives_alone_and_no_page_is_left_behind(fake, jobs, shape):
    pages, max_rows, batch_size = shape
    engine = Engine(fake.Program(pages=pages, max_rows=max_rows), batch_size=batch_size)
    requests = [Request(i, prompt, params(fake, new)) for i, (prompt, new) in enumerate(jobs)]
    for request in requests:
        engine.submit(request)
    while engine._scheduler.unfinished:
        engine.step()
        scheduler = engine._scheduler
        assert len({page for r in scheduler.running for page in r.blocks}) + scheduler.pool.free_count == pages
        assert len(scheduler.running) <= batch_size
        assert [r.arrival for r in scheduler.running] == sorted(r.arrival for r in scheduler.running)
    assert_no_page_is_lent(engine)
    for request, (prompt, new) in zip(requests, jobs, strict=True):
        assert request.output_ids == fake.greedy(prompt, new, 40)
        assert request.finish_reason == ("stop" if request.output_ids[-1] == fake.EOS else "length")


@settings(max_examples=60, deadline=None)
@given(jobs=jobs, shape=shapes, seed=st.integers(0, 2**64 - 1))
def test_draws_repeat_by_seed_and_request_whatever_runs_beside_them(fake, jobs, shape, seed):
    pages, max_rows, batch_size = shape
    how = {"temperature": 0.9, "top_k": 12, "top_p": 0.95, "repetition_penalty": 1.2, "seed": seed}

    def run(engine, chosen):
        requests = [Request(i, jobs[i][0], params(fake, jobs[i][1], **how)) for i in chosen]
        return {chosen[c.index]: c.token_ids for c in engine.generate(requests)}

    together = run(Engine(fake.Program(pages=pages, max_rows=max_rows), batch_size=batch_size), range(len(jobs)))
    for i in range(len(jobs)):
        assert run(Engine(fake.Program(), batch_size=1), [i]) == {i: together[i]}


def test_requests_that_are_preempted_finish_with_the_same_tokens(fake):
    program = fake.Program(pages=10, max_rows=16)
    engine = Engine(program, batch_size=4)
    prompts = [[i + 1] * 7 for i in range(6)]
    preempted = []
    take = engine._scheduler._preempt
    engine._scheduler._preempt = lambda request: (preempted.append(request), take(request))
    ignoring = SamplingParams(max_new_tokens=20)
    done = {c.index: c.token_ids for c in engine.generate(Request(i, p, ignoring) for i, p in enumerate(prompts))}
    assert preempted
    assert done == {i: fake.greedy(p, 20, 40, eos=()) for i, p in enumerate(prompts)}
    assert_no_page_is_lent(engine)


def test_decode_rows_and_chunks_of_prompts_share_a_step(fake):
    program = fake.Program(max_rows=8)
    engine = Engine(program, batch_size=2)
    list(engine.generate([Request(0, [1, 2], SamplingParams(6)), Request(1, [5] * 20, SamplingParams(2))]))
    # The first step fills its 8 rows with both prompts; then one decodes beside chunks of the other.
    assert program.steps[0] == [2, 6]
    assert program.steps[1] == [1, 7]
    assert program.steps[2] == [1, 7]
    assert program.steps[3] == [1, 1]


def test_completions_come_as_they_are_done_with_the_index_of_their_request(fake):
    engine = Engine(fake.Program(), batch_size=3)
    requests = [
        Request(9, [1, 2], SamplingParams(9)),
        Request(8, [1, 2], SamplingParams(2)),
        Request(7, [4], SamplingParams(5)),
    ]
    assert [c.index for c in engine.generate(requests)] == [1, 2, 0]


def test_requests_are_taken_from_the_iterable_only_as_there_is_room(fake):
    taken = []

    def source():
        for i in range(50):
            taken.append(i)
            yield Request(i, [1, i % 20], SamplingParams(3))

    engine = Engine(fake.Program(), batch_size=2)
    completions = engine.generate(source())
    next(completions)
    assert len(taken) <= 4
    assert len(list(completions)) == 49


def test_a_generator_that_is_dropped_frees_its_pages(fake):
    engine = Engine(fake.Program(), batch_size=4)
    completions = engine.generate(Request(i, [i], SamplingParams(i + 1)) for i in range(8))
    next(completions)
    assert engine._scheduler.running
    completions.close()
    assert_no_page_is_lent(engine)


def test_the_sequence_limit_ends_a_completion(fake):
    engine = Engine(fake.Program(), batch_size=1, max_seq_length=10)
    [completion] = engine.generate([Request(0, [1] * 9, SamplingParams(20))])
    assert completion == Completion(0, "", fake.greedy([1] * 9, 1, 10, eos=()), "length", [1] * 9)


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ([], {}, "the prompt is empty"),
        ([1, 29], {}, "token id 29 is not in the vocabulary, ids 0 to 28"),
        ([-1], {}, "token id -1 is not"),
        ([1] * 40, {}, "the prompt has 40 tokens, and at most 39 fit"),
        ([1] * 20, {"max_new_tokens": 10}, "need 29 positions, and the KV memory holds 28"),
        ([1], {"stop": ("x",)}, "stop strings need a tokenizer"),
    ],
)
def test_what_can_never_run_is_refused_before_it_starts(fake, prompt, params, message):
    engine = Engine(fake.Program(pages=7), batch_size=2)
    with pytest.raises(RequestError, match=message):
        engine.submit(Request(0, prompt, SamplingParams(**params)))
    assert_no_page_is_lent(engine)


def test_a_request_that_needs_every_page_runs(fake):
    engine = Engine(fake.Program(pages=7), batch_size=2)
    requests = [Request(i, [1] * 20, SamplingParams(9)) for i in range(3)]
    assert [c.token_ids for c in engine.generate(requests)] == [fake.greedy([1] * 20, 9, 40, eos=())] * 3


def test_a_request_is_submitted_once(fake):
    engine = Engine(fake.Program(), batch_size=2)
    request = Request(0, [1])
    engine.submit(request)
    with pytest.raises(RequestError, match="submitted before"):
        engine.submit(request)


def test_logits_that_are_not_numbers_are_refused(fake):
    program = fake.Program()
    program.step = lambda *arguments: np.full((1, fake.VOCABULARY), np.nan, np.float32)
    engine = Engine(program, batch_size=1)
    with pytest.raises(RuntimeFailure, match="request 5 at position 1 are not finite"):
        list(engine.generate([Request(5, [1, 2])]))
    assert_no_page_is_lent(engine)


# Streams


def test_a_stream_gives_the_text_of_the_completion_and_returns_it(fake):
    engine = Engine(fake.Program(), fake.Tokenizer(), batch_size=1, detokenizer=fake.Detokenizer)
    [whole] = engine.generate([Request(0, [1, 2], SamplingParams(30))])

    def follow():
        returned.append((yield from engine.stream(Request(0, [1, 2], SamplingParams(30)))))

    returned = []
    pieces = list(follow())
    assert returned == [whole]
    assert "".join(pieces) == whole.text
    assert len(pieces) > 10


def test_a_stream_that_is_dropped_frees_its_pages(fake):
    engine = Engine(fake.Program(), fake.Tokenizer(), batch_size=1, detokenizer=fake.Detokenizer)
    stream = engine.stream(Request(0, [1, 2], SamplingParams(30)))
    next(stream)
    stream.close()
    assert_no_page_is_lent(engine)


# Threads and interruptions


def test_threads_that_generate_at_once_all_get_what_they_get_alone(fake):
    program = fake.Program(pages=24, before_step=lambda step: time.sleep(0.0005))
    engine = Engine(program, batch_size=4)
    results = {}

    def work(name):
        prompts = [[name, i] for i in range(6)]
        requests = [Request(i, prompt, SamplingParams(4 + name)) for i, prompt in enumerate(prompts)]
        results[name] = {c.index: c.token_ids for c in engine.generate(requests)}
        assert np.array_equal(logits(engine, [name, 1])[1], fake.logits_of([name, 1]))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert results == {name: {i: fake.greedy([name, i], 4 + name, 40, eos=()) for i in range(6)} for name in range(5)}
    assert max(len(rows) for rows in program.steps) > 1
    assert_no_page_is_lent(engine)


@pytest.mark.parametrize("interrupted_step", [0, 1, 3, 6])
def test_ctrl_c_in_a_step_frees_the_pages_and_leaves_the_engine_usable(fake, interrupted_step):
    def interrupt(step):
        if step == interrupted_step:
            program.before_step = None
            raise KeyboardInterrupt

    program = fake.Program(before_step=interrupt)
    engine = Engine(program, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        list(engine.generate(Request(i, [i] * 6, SamplingParams(8)) for i in range(5)))
    assert_no_page_is_lent(engine)
    [completion] = engine.generate([Request(0, [7, 8], SamplingParams(8))])
    assert completion.token_ids == fake.greedy([7, 8], 8, 40, eos=())


def test_ctrl_c_at_any_line_of_the_engine_loses_no_token_of_the_others(each):
    """An exception at each line that a step runs through, one run for each."""
    prompts = [[1, 2, 3], [4] * 9, [5]]
    expected = [each.greedy(prompt, 5, 40, eos=()) for prompt in prompts]
    count = len(_lines_run(each, prompts, None)[1])
    assert count > 100
    for line in range(0, count, 7):
        requests, lines = _lines_run(each, prompts, line)
        assert [request.output_ids for request in requests] == expected, lines[-1]


def _lines_run(each, prompts, interrupt_at):
    """Run the prompts by steps, with a KeyboardInterrupt at one line of the engine's code."""
    engine = Engine(each.Program(pages=12, max_rows=6), each.Tokenizer(), batch_size=2, detokenizer=each.Detokenizer)
    requests = [Request(i, prompt, SamplingParams(5, stop=("zzz",))) for i, prompt in enumerate(prompts)]
    for request in requests:
        engine.submit(request)
    lines = run_cut_off(engine, lambda file: "bossa/engine" in file, interrupt_at)
    while engine._scheduler.unfinished:
        engine.step()
    assert engine._scheduler.pool.free_count == 12, lines[-1]
    return requests, lines


def test_one_thread_interrupted_does_not_disturb_another(fake):
    other: list[Completion] = []

    def interrupt(step):
        time.sleep(0.001)
        if step > 5 and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    engine = Engine(fake.Program(before_step=interrupt), batch_size=3)
    thread = threading.Thread(
        target=lambda: other.extend(engine.generate(Request(i, [i, 3], SamplingParams(15)) for i in range(9)))
    )
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        list(engine.generate(Request(0, [5] * 9, SamplingParams(20)) for _ in range(100)))
    thread.join(timeout=30)
    assert {c.index: c.token_ids for c in other} == {i: fake.greedy([i, 3], 15, 40, eos=()) for i in range(9)}
    assert_no_page_is_lent(engine)


def test_a_request_aborted_during_a_step_takes_nothing_from_it(fake):
    requests = [Request(0, [1, 2], SamplingParams(5)), Request(1, [3], SamplingParams(5))]

    def abort_from_another_thread(step):
        if step == 2:
            thread = threading.Thread(target=engine.abort, args=(requests[:1],))
            thread.start()
            thread.join()

    engine = Engine(fake.Program(before_step=abort_from_another_thread), batch_size=2)
    for request in requests:
        engine.submit(request)
    while engine._scheduler.unfinished:
        engine.step()
    assert requests[0].output_ids == fake.greedy([1, 2], 2, 40, eos=())
    assert requests[0].finish_reason is None
    assert requests[1].output_ids == fake.greedy([3], 5, 40, eos=())
    assert_no_page_is_lent(engine)


def test_ctrl_c_twice_the_second_time_while_recovering_leaves_the_engine_usable(fake):
    def interrupt(step=None):
        raise KeyboardInterrupt

    program = fake.Program()
    engine = Engine(program, batch_size=2)
    requests = [Request(i, [i + 1], SamplingParams(6)) for i in range(2)]
    for request in requests:
        engine.submit(request)
    engine.step()
    program.before_step = interrupt
    reset = engine._scheduler.pool.reset
    engine._scheduler.pool.reset = lambda: (reset(), interrupt())  # the pages are back, the requests still name them
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    program.before_step = None
    engine._scheduler.pool.reset = reset
    while engine._scheduler.unfinished:
        engine.step()
    assert [r.output_ids for r in requests] == [fake.greedy([i + 1], 6, 40, eos=()) for i in range(2)]
    assert_no_page_is_lent(engine)


def test_after_close_everything_is_refused_and_closing_again_does_nothing(fake):
    program = fake.Program()
    engine = Engine(program, batch_size=1)
    running = engine.generate([Request(i, [1], SamplingParams(4)) for i in range(4)])
    next(running)
    engine.close()
    engine.close()
    assert program.closed
    with pytest.raises(RequestError, match="closed"):
        list(running)
    with pytest.raises(RequestError, match="closed"):
        logits(engine, [1])
