"""Steps of decoding that run one after the other inside the program: when they do, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from bossa.engine import Engine, Request, SamplingParams
from bossa.errors import RuntimeFailure

PROMPTS = [[1, 2, 4], [5], [6, 7, 8, 9, 1]]


def run(each, params, prompts=PROMPTS, stream=False, **shape):
    program = each.AheadProgram(**shape)
    engine = Engine(program, each.Tokenizer(), batch_size=4, detokenizer=each.Detokenizer)
    requests = [Request(i, prompt, params) for i, prompt in enumerate(prompts)]
    for request in requests:
        request.stream = stream
    return program, sorted(engine.generate(requests), key=lambda completion: completion.index)


def test_decoding_runs_ahead_and_gives_the_same_tokens(each):
    program, completions = run(each, SamplingParams(max_new_tokens=20, ignore_eos=True), page_size=32)
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        assert completion.token_ids == each.greedy(prompt, 20, 40, eos=())
    assert max(program.decodings) == program.most_steps
    assert len(program.decodings) <= 5


def test_no_further_step_runs_after_the_end_of_a_completion(each):
    program, completions = run(each, SamplingParams(max_new_tokens=30, eos_token_ids=(each.EOS,)))
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        assert completion.token_ids == each.greedy(prompt, 30, 40)
    lone = len(program.steps) - sum(len(steps) > 1 for steps in program.steps)
    assert lone <= max(len(completion.token_ids) for completion in completions)
    assert len(program.steps) <= 1 + max(len(completion.token_ids) for completion in completions)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(8, temperature=1.0),
        SamplingParams(8, logprobs=2),
        SamplingParams(8, repetition_penalty=1.2),
        SamplingParams(8, speculate=3),
        SamplingParams(8, stop=("zz",)),
    ],
)
def test_what_needs_more_than_the_likeliest_tokens_takes_one_step_at_a_time(each, params):
    assert run(each, params)[0].decodings == []


def test_streams_take_one_step_at_a_time(each):
    assert run(each, SamplingParams(8), stream=True)[0].decodings == []


def test_pages_are_taken_ahead_only_where_nobody_lacks_them(each):
    """Ten pages of four positions: three sequences of up to 12 tokens fit, with nothing to spare."""
    program, completions = run(each, SamplingParams(7, ignore_eos=True), pages=10)
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        assert completion.token_ids == each.greedy(prompt, 7, 40, eos=())
    assert program.decodings


def test_steps_end_before_one_whose_logits_are_not_finite(each):
    """The tokens before it are kept, or made again; then the step runs alone, and says which request cannot go on."""

    class Broken(each.AheadProgram):
        def step(self, tokens, positions, *others):
            logits = super().step(tokens, positions, *others)
            logits[np.asarray(positions)[others[2]] >= 6] = np.nan
            return logits

    program = Broken()
    engine = Engine(program, batch_size=1)
    request = Request(0, [1, 2, 4], SamplingParams(20, ignore_eos=True))
    engine.submit(request)
    failed: list[Request] = []
    while not failed:
        engine.step(failed)
    assert isinstance(request.error, RuntimeFailure)
    assert program.decodings
    assert request.output_ids == each.greedy([1, 2, 4], 4, 40, eos=())


def test_with_recurrent_state_steps_end_where_a_snapshot_is_wanted(recurrent):
    """At the ends of pages of each, here 16 positions, so that the next turn can start at the last."""
    program, completions = run(recurrent, SamplingParams(20, ignore_eos=True), PROMPTS[:1], page_size=16)
    assert completions[0].token_ids == recurrent.greedy(PROMPTS[0], 20, 40, eos=())
    assert program.decodings[0] == 16 - len(PROMPTS[0])
    assert len(program.copies) == 1
