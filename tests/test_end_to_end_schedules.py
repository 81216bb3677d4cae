"""Random schedules on a real program: each request gets the bits that it gets alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bossa
from bossa.engine import Completion, Engine, Request, SamplingParams
from bossa.engine.scoring import logits

pytestmark = pytest.mark.end_to_end

VOCABULARY = 61
LENGTH = 128
PAGES = 24  # of 32 positions


class FewerPages:
    """A program of which fewer pages are used, so that requests are in each other's way."""

    def __init__(self, program: Any, pages: int) -> None:
        self._program, self.pages = program, pages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._program, name)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=VOCABULARY, num_key_value_heads=2, max_position_embeddings=LENGTH, initializer_range=0.3, **sizes
    )
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOSSA_CACHE", str(folder / "cache"))
        with bossa.load(bossa.compile(config), weights=folder, threads=2, batch_size=PAGES * 32 // LENGTH) as model:
            assert model.engine.program.pages == PAGES
            yield model.engine.program


@pytest.fixture(scope="module")
def alone(program):
    """What a request gets on a fresh engine, without guesses; every logit of every row is in the completion."""
    known: dict[Any, Completion] = {}

    def run(request: Request) -> Completion:
        params = replace(request.params, speculate=0)
        key = (request.id, request.sample, tuple(request.prompt_token_ids), params)
        if key not in known:
            fresh = Request(request.id, request.prompt_token_ids, params, sample=request.sample)
            [known[key]] = Engine(program, batch_size=1).generate([fresh])
        return known[key]

    return run


heads = st.integers(0, 2).map(lambda seed: np.random.default_rng(seed).integers(0, VOCABULARY, 33 * seed).tolist())
jobs = st.builds(
    lambda head, tail, **how: ([*head, *tail], SamplingParams(logprobs=VOCABULARY, **how)),
    head=heads,
    tail=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20),
    max_new_tokens=st.integers(1, 40),
    temperature=st.sampled_from([0.0, 0.0, 0.9]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.2]),
    speculate=st.sampled_from([0, 3, 8]),
)


@settings(max_examples=40, deadline=None)
@given(
    some=st.lists(st.tuples(jobs, st.integers(1, 3), st.integers(0, 9)), min_size=1, max_size=6),
    pages=st.integers(LENGTH // 32, 12),
    max_rows=st.sampled_from([3, 17, 64, 512]),
    batch_size=st.integers(1, 6),
)
def test_every_request_gets_the_bits_that_it_gets_alone(program, alone, some, pages, max_rows, batch_size):
    engine = Engine(FewerPages(program, pages), batch_size=batch_size, max_rows=max_rows)
    arriving = [
        (wait, Request(place, prompt, params, sample=sample))
        for place, ((prompt, params), n, wait) in enumerate(some)
        for sample in range(n)
    ]
    requests = [request for _, request in arriving]
    clock = 0
    while arriving or engine._scheduler.unfinished:
        for wait, request in tuple(arriving):
            if wait <= clock:
                engine.submit(request)
                arriving.remove((wait, request))
        engine.step()
        clock += 1
    prompt = requests[0].prompt_token_ids
    found = logits(engine, prompt)
    # From here on other engines write to the same pages.
    assert np.array_equal(found, logits(Engine(program, batch_size=1), prompt))
    for request in requests:
        assert request.completion(0) == alone(request)


def test_guesses_pages_in_common_and_likeliest_tokens_alone_change_none(program):
    """The same in one large run that has no logits to look at: most steps ask for the likeliest tokens alone."""
    rng = np.random.default_rng(5)
    head = rng.integers(0, VOCABULARY, 70).tolist()
    prompts = [[*head[: 35 * (i % 3)], *rng.integers(0, VOCABULARY, 1 + i).tolist()] for i in range(20)]

    def run(pages, batch_size, speculate):
        steps = Counter()
        used = FewerPages(program, pages)

        def count(name, *arguments):
            found = getattr(program, name)(*arguments)
            steps[name] += len(found) if name == "decode_greedy" else 1
            return found

        for name in ("step", "step_greedy", "decode_greedy"):
            setattr(used, name, partial(count, name))
        engine = Engine(used, batch_size=batch_size)
        requests = [Request(i, prompt, SamplingParams(30, speculate=speculate)) for i, prompt in enumerate(prompts)]
        return steps, {c.index: c.token_ids for c in engine.generate(requests)}

    plain, expected = run(PAGES, 1, 0)
    guessing, found = run(9, 4, 8)
    assert found == expected
    assert set(plain) == {"step_greedy", "decode_greedy"}
    assert sum(plain.values()) == 20 * 30
    assert set(guessing) == {"step_greedy"}
    _, found = run(PAGES, 1, 8)
    assert found == expected
