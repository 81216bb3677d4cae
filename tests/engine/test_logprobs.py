"""Log probabilities of new tokens, and several samples of a prompt."""

from __future__ import annotations

import numpy as np
import pytest

from bossa.engine import Engine, Request, SamplingParams
from bossa.engine.logprobs import token_logprob
from bossa.errors import RequestError

PROMPT = [1, 2, 5, 5]


def expected(row):
    scores = row.astype(np.float64)
    return scores - np.log(np.exp(scores).sum())


@pytest.mark.parametrize(
    "how", [{}, {"temperature": 1.7, "top_k": 4, "seed": 5}, {"repetition_penalty": 1.4}, {"speculate": 6}]
)
def test_they_are_those_of_the_raw_logits(fake, how):
    [completion] = Engine(fake.Program(habit=6), batch_size=1).generate(
        [Request(0, PROMPT, SamplingParams(12, logprobs=3, **how))]
    )
    assert len(completion.logprobs) == len(completion.token_ids) == 12
    tokens = list(PROMPT)
    for token, found in zip(completion.token_ids, completion.logprobs, strict=True):
        logprobs = expected(fake.logits_of(tokens, 6))
        assert found.token_id == token
        assert found.logprob == pytest.approx(logprobs[token], rel=1e-12)  # float64; another order of additions
        best = sorted(range(fake.VOCABULARY), key=lambda v: (-logprobs[v], v))[:3]
        assert [top for top, _ in found.top] == best
        assert [value for _, value in found.top] == pytest.approx([logprobs[v] for v in best], rel=1e-12)
        tokens.append(token)


def test_asking_for_them_changes_no_token(fake):
    program = fake.Program()
    [plain] = Engine(program, batch_size=1).generate([Request(0, PROMPT)])
    [asked] = Engine(fake.Program(), batch_size=1).generate([Request(0, PROMPT, SamplingParams(logprobs=0))])
    assert asked.token_ids == plain.token_ids
    assert plain.logprobs is None
    assert [found.top for found in asked.logprobs] == [[]] * 20
    assert program.greedy_steps == len(program.steps)


def test_of_equals_the_lowest_ids_are_named_and_what_cannot_be_is_not():
    row = np.array([1, 3, 1, 1, -np.inf, 3], np.float32)
    assert [token for token, _ in token_logprob(row, 0, 4).top] == [1, 5, 0, 2]
    assert [token for token, _ in token_logprob(row, 0, 6).top] == [1, 5, 0, 2, 3]


def test_more_than_there_are_tokens_are_refused(fake):
    with pytest.raises(RequestError, match="logprobs is 30, and there are 29 tokens"):
        Engine(fake.Program(), batch_size=1).check(Request(0, [1], SamplingParams(logprobs=30)))
    with pytest.raises(RequestError, match="logprobs must be a whole number from 0, or None, and is -1"):
        SamplingParams(logprobs=-1)


def test_an_interruption_loses_and_doubles_none(fake):
    def interrupt(step):
        if step == 4:
            program.before_step = None
            raise KeyboardInterrupt

    program = fake.Program(before_step=interrupt)
    engine = Engine(program, batch_size=1)
    request = Request(0, PROMPT, SamplingParams(9, logprobs=0))
    engine.submit(request)
    while engine._scheduler.unfinished:
        try:
            engine.step()
        except KeyboardInterrupt:
            request.logprobs.append(request.logprobs[0])  # as when the token itself was not added any more
    assert [found.token_id for found in request.logprobs] == request.output_ids


def test_samples_of_a_prompt_draw_on_their_own_and_the_first_as_one_alone_does(fake):
    how = SamplingParams(10, temperature=2.0, seed=4)
    engine = Engine(fake.Program(), batch_size=4)
    draws = {c.sample: c.token_ids for c in engine.generate(Request(7, PROMPT, how, sample=s) for s in range(4))}
    assert len({tuple(tokens) for tokens in draws.values()}) == 4
    [alone] = Engine(fake.Program(), batch_size=1).generate([Request(7, PROMPT, how)])
    assert draws[0] == alone.token_ids
    [other] = Engine(fake.Program(), batch_size=1).generate([Request(7, PROMPT, how, sample=2)])
    assert draws[2] == other.token_ids


def test_samples_share_the_pages_of_their_prompt(fake):
    program = fake.Program()
    engine = Engine(program, batch_size=4)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    list(engine.generate(Request(0, prompt, SamplingParams(2, temperature=1.0), sample=s) for s in range(4)))
    assert sum(map(sum, program.steps)) == 9 + 3 * 1 + 4
