"""Logits of every position, and the scores made from them."""

from __future__ import annotations

import numpy as np
import pytest

from bossa.engine import Engine, Request, SamplingParams
from bossa.engine.request import Observer
from bossa.engine.scoring import logits, score
from bossa.errors import RequestError
from bossa.runtime.memory import logit_rows


@pytest.mark.parametrize("max_rows", [1, 5, 16])
def test_logits_are_those_of_every_position_however_they_are_chunked(fake, max_rows):
    tokens = [5, 1, 28, 0, 3, 3, 9, 10, 11, 2, 4, 6, 7]
    found = logits(Engine(fake.Program(max_rows=max_rows), batch_size=1), tokens)
    assert found.dtype == np.float32
    assert np.array_equal(found, [fake.logits_of(tokens[: t + 1]) for t in range(len(tokens))])


def test_logits_may_have_every_position_that_a_sequence_may_have(fake):
    engine = Engine(fake.Program(), batch_size=1)
    assert logits(engine, [1] * 40).shape == (40, fake.VOCABULARY)
    with pytest.raises(RequestError, match="41 tokens, and at most 40 fit"):
        logits(engine, [1] * 41)


def test_a_score_is_the_sum_of_the_log_probabilities_of_the_completion(fake):
    prompt, completion = [1, 2, 3, 4, 5, 6, 7], [8, 9, 1, 2]
    expected = 0.0
    for i, token in enumerate(completion):
        scores = fake.logits_of(prompt + completion[:i]).astype(np.float64)
        expected += scores[token] - np.log(np.exp(scores).sum())
    found = score(Engine(fake.Program(max_rows=3), batch_size=1), prompt, completion)
    assert found == pytest.approx(expected, rel=1e-12)  # both float64; only the order of additions differs


def test_a_score_of_nothing_is_zero_and_one_after_nothing_is_refused(fake):
    engine = Engine(fake.Program(), batch_size=1)
    assert score(engine, [1], []) == 0.0
    with pytest.raises(RequestError, match="at least one token"):
        score(engine, [], [1])
    with pytest.raises(RequestError, match="not in the vocabulary"):
        score(engine, [1], [29])


def test_a_step_never_holds_the_logits_of_a_whole_long_prompt(fake):
    program = fake.Program(max_seq_length=300, pages=75, max_rows=300)
    tokens = [i % 29 for i in range(300)]
    assert np.array_equal(logits(Engine(program, batch_size=1), tokens)[299], fake.logits_of(tokens))
    assert program.steps == [[128], [128], [44]]


def test_logits_are_the_same_when_their_pages_were_taken_away_in_between(fake):
    engine = Engine(fake.Program(pages=10, max_rows=4), batch_size=3)
    older = Request(0, [1] * 4, SamplingParams(30))
    engine.submit(older)
    engine.step()
    preempted = []
    take = engine._scheduler._preempt
    engine._scheduler._preempt = lambda request: (preempted.append(request), take(request))
    tokens = list(range(28))
    found = logits(engine, tokens)
    assert preempted
    assert np.array_equal(found, [fake.logits_of(tokens[: t + 1]) for t in range(28)])
    while engine.step():
        pass


def test_a_step_has_no_more_rows_with_logits_than_memory_is_set_aside_for(fake):
    program = fake.Program(max_seq_length=300, pages=300, max_rows=400, habit=11.0)
    engine = Engine(program, batch_size=3)
    step, most = program.step, []
    program.step = lambda *arguments: (most.append(len(arguments[-1])), step(*arguments))[1]
    found = np.empty((2, 250, fake.VOCABULARY), np.float32)

    def observer(place):
        def receive(position, rows):
            found[place, position : position + len(rows)] = rows

        return Observer(0, receive)

    prompts = [[(i + place) % 29 for i in range(250)] for place in range(2)]
    engine.submit(Request(0, [0, 2, 5, 6, 4, 1] * 3, SamplingParams(200, speculate=99)))
    for place, prompt in enumerate(prompts):
        engine.submit(Request(place + 1, prompt, observer=observer(place)))
    while engine._scheduler.unfinished:
        engine.step()
    assert max(most) == logit_rows(400, 3) == 130
    for place, prompt in enumerate(prompts):
        assert np.array_equal(found[place, 249], fake.logits_of(prompt, 11.0))
