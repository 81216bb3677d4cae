"""Random schedules: whatever runs beside a request, it gets what it gets alone on a fresh engine, to the bit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.engine import Engine, Request, SamplingParams
from bossa.engine.request import State
from bossa.engine.scoring import logits

HEADS = ([], [5, 1, 9, 9, 2, 7], [5, 1, 9, 9, 2, 7, 7, 7, 3, 20, 11, 12, 12], [8] * 9)


CONSTRAINTS = (
    {"choices": ("ab", "abc", "x")},
    {"choices": ("a", "ab", "cb", "m")},
    {"regex": "[abc]{2,5}( moon)?x*"},
    {"regex": "(ab|ac|e){3,}"},
)
GRAMMARS = {}  # type: ignore[var-annotated]
"""Of all engines here, which have the same tokens: to compile them takes longer than all else."""


def shifted(tokens, row):
    """A caller's logits processor: it depends on all that it is given."""
    return np.roll(row, sum(tokens) % 3)


@dataclass(frozen=True)
class Job:
    prompt: tuple[int, ...]
    n: int
    params: SamplingParams
    wait: int  # steps before it arrives
    leave: int | None  # steps after which it is taken out, if it is not done


@st.composite
def jobs(draw: st.DrawFn, stops: bool = False) -> Job:
    """Prompts that begin alike, and say things twice; greedy as a rule, and all that changes a choice."""
    prompt = [*draw(st.sampled_from(HEADS)), *draw(st.lists(st.integers(0, 8), min_size=1, max_size=9))]
    temperature = draw(st.sampled_from([0.0, 0.0, 0.0, 0.7, 1.5]))
    constraint = draw(st.sampled_from([{}, {}, {}, *CONSTRAINTS]))
    params = SamplingParams(
        max_new_tokens=draw(st.integers(1, 24)),
        temperature=temperature,
        top_k=draw(st.sampled_from([0, 5])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.0, 1.3])),
        no_repeat_ngram_size=draw(st.sampled_from([0, 0, 0, 2])) if not constraint else 0,
        min_new_tokens=draw(st.sampled_from([None, None, None, 6])) if not constraint else None,
        forced_eos_token_id=draw(st.sampled_from([None, None, None, 3])) if not constraint else None,
        logits_processors=draw(st.sampled_from([(), (), (), (shifted,)])) if "choices" not in constraint else (),
        seed=draw(st.integers(0, 3)),
        eos_token_ids=(3,),
        stop=draw(st.sampled_from([(), ("c", "fg")])) if stops else (),
        logprobs=draw(st.sampled_from([None, None, None, 0, 3])),
        speculate=draw(st.sampled_from([0, 1, 4, 8])),
        **constraint,
    )
    leave = draw(st.sampled_from([None, None, None, None, 7, 9, 12]))
    return Job(tuple(prompt), draw(st.integers(1, 3)), params, draw(st.integers(0, 6)), leave)


@dataclass(frozen=True)
class Shape:
    spare_pages: int  # besides those that one sequence of full length needs
    length: int
    max_rows: int
    batch_size: int
    habit: float  # how well the next token can be guessed
    ahead: bool  # whether steps of decoding run one after the other
    slots: int  # of recurrent state

    @property
    def pages(self) -> int:
        return -(-self.length // 4) + self.spare_pages


shapes = st.builds(
    Shape,
    spare_pages=st.integers(0, 12),
    length=st.integers(24, 40),
    max_rows=st.integers(1, 18),
    batch_size=st.integers(1, 5),
    habit=st.sampled_from([0.0, 6.0, 11.0, 11.0]),
    ahead=st.booleans(),
    slots=st.integers(1, 12),
)


def requests_of(job: Job, place: int) -> list[Request]:
    return [Request(place, job.prompt, job.params, sample=sample) for sample in range(job.n)]


def engine_of(fake, shape):
    make = fake.AheadProgram if shape.ahead else fake.Program
    program = make(shape.pages, 4, shape.length, shape.max_rows, habit=shape.habit, state_slots=shape.slots)
    engine = Engine(program, fake.Tokenizer(), batch_size=shape.batch_size, detokenizer=fake.Detokenizer)
    engine._grammars = GRAMMARS
    return engine


def alone(fake, request, shape):
    """On a fresh engine, without guesses."""
    params = replace(request.params, speculate=0)
    engine = engine_of(fake, replace(shape, spare_pages=0, max_rows=64, batch_size=1, ahead=False))
    [completion] = engine.generate([Request(request.id, request.prompt_token_ids, params, sample=request.sample)])
    return completion


def run_schedule(fake, some_jobs, shape):
    engine = engine_of(fake, shape)
    scheduler = engine._scheduler
    arriving = [(job.wait, r) for place, job in enumerate(some_jobs) for r in requests_of(job, place)]
    requests = [request for _, request in arriving]
    clock = 0
    while arriving or scheduler.unfinished:
        for wait, request in tuple(arriving):
            if wait <= clock:
                engine.submit(request)
        arriving = [(wait, request) for wait, request in arriving if wait > clock]
        engine.abort(r for r in requests if some_jobs[r.id].leave == clock)
        engine.step()
        clock += 1
        held = {page for request in scheduler.running for page in request.blocks}
        assert len(held) + scheduler.pool.free_count == shape.pages
        assert len(scheduler.running) <= shape.batch_size
        if scheduler.states is not None:
            assert len({request.slot for request in scheduler.running}) == len(scheduler.running)
            assert len(scheduler.running) + scheduler.states.free_count == shape.slots
    assert scheduler.pool.free_count == shape.pages
    assert not scheduler.running
    assert not scheduler.waiting
    return engine, requests


@settings(max_examples=100, deadline=None)
@given(some_jobs=st.lists(jobs(stops=True), min_size=1, max_size=8), shape=shapes)
def test_every_completion_is_the_one_that_its_request_gets_alone(each, some_jobs, shape):
    engine, requests = run_schedule(each, some_jobs, shape)
    for request in requests:
        expected = alone(each, request, shape)
        if request.state is State.ABORTED:
            assert request.output_ids == expected.token_ids[: len(request.output_ids)]
        else:
            assert request.state is State.FINISHED
            assert request.completion(0) == expected
    assert max(map(sum, engine.program.steps), default=0) <= shape.max_rows


@settings(max_examples=40, deadline=None)
@given(some_jobs=st.lists(jobs(), min_size=1, max_size=4), shape=shapes, cut=st.integers(0, 12), halfway=st.booleans())
def test_a_step_that_is_cut_off_changes_no_completion(each, some_jobs, shape, cut, halfway):
    def interrupt(step):
        if step == cut:
            engine.program.before_step = engine.program.during_step = None
            if not halfway:
                engine.program.spoil()  # and nothing that was written before may be read again
            raise KeyboardInterrupt

    engine = engine_of(each, shape)
    requests = [r for place, job in enumerate(some_jobs) for r in requests_of(job, place)]
    if halfway and each.name != "pages":
        engine.program.during_step = interrupt  # when a part of the recurrent state has been moved
    else:
        engine.program.before_step = interrupt
    for request in requests:
        engine.submit(request)
    while engine._scheduler.unfinished:
        try:
            engine.step()
        except KeyboardInterrupt:
            continue
    for request in requests:
        assert request.completion(0) == alone(each, request, shape)


@settings(max_examples=40, deadline=None)
@given(some_jobs=st.lists(jobs(), min_size=2, max_size=4), shape=shapes)
def test_logits_are_those_of_their_tokens_whatever_ran_before(each, some_jobs, shape):
    engine, _ = run_schedule(each, some_jobs[1:], shape)
    tokens = some_jobs[0].prompt
    found = logits(engine, tokens)
    assert [list(row) for row in found] == [
        list(each.logits_of(tokens[: t + 1], shape.habit)) for t in range(len(tokens))
    ]
