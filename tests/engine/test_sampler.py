"""Sampling against Hugging Face's own processors, NumPy's Philox, and the distribution that it should have."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.engine.request import Request, SamplingParams
from bossa.engine.sampler import distribution, draw, penalize, philox, sample, top_k, top_p, uniform
from bossa.errors import RequestError

V = 50


def logits(seed, count=1):
    return np.random.default_rng(seed).normal(0, 3, (count, V)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.9]),
    top_k=st.sampled_from([0, 1, 3, 10, V, 3 * V]),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    penalty=st.sampled_from([0.8, 1.0, 1.5]),
)
def test_the_distribution_is_that_of_hugging_face(seed, temperature, top_k, top_p, min_p, penalty):
    torch = pytest.importorskip("torch")
    from transformers.generation import logits_process as hf

    row = logits(seed)[0]
    seen = [1, 5, 5, 20, 49]
    processors = [hf.RepetitionPenaltyLogitsProcessor(penalty)] if penalty != 1 else []
    processors += [hf.TemperatureLogitsWarper(temperature)]
    processors += [hf.TopKLogitsWarper(top_k)] if top_k else []
    processors += [hf.TopPLogitsWarper(top_p)] if top_p < 1 else []
    processors += [hf.MinPLogitsWarper(min_p)] if min_p else []
    scores = torch.tensor(row[None])
    for processor in processors:
        scores = processor(torch.tensor([seen]), scores)
    expected = torch.softmax(scores.double(), -1)[0].numpy()

    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty)
    ids, weights = distribution(penalize(row, seen, penalty), params)
    found = np.zeros(V)
    found[ids] = weights / weights.sum()
    assert np.array_equal(found > 0, expected > 0)
    assert found == pytest.approx(expected, abs=1e-6)  # Hugging Face filters in float32


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.01, 0.2, 0.5, 1.0]), min_size=1, max_size=40), st.floats(0, 1))
def test_top_p_keeps_the_fewest_largest_and_of_equals_the_first(weights, p):
    weights = np.array(weights)
    order = np.argsort(-weights, kind="stable")
    kept = top_p(weights, p)
    assert sorted(order[: len(kept)]) == list(kept)
    total = weights.sum()
    assert weights[kept].sum() >= p * total * (1 - 1e-12)  # sums of up to 40 numbers, in another order
    assert len(kept) == 1 or weights[order[: len(kept) - 1]].sum() < p * total * (1 + 1e-12)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 700), k=st.integers(1, 800), spread=st.sampled_from([1, 40]))
def test_top_k_keeps_the_best_and_all_that_equal_the_last_of_them(seed, size, k, spread):
    rng = np.random.default_rng(seed)
    row = rng.integers(0, spread, size).astype(np.float32)
    row[rng.random(size) < 0.2] = -np.inf
    kept = np.sort(row)[::-1][: min(k, size)]
    assert list(top_k(row, k)) == [i for i in range(size) if row[i] >= kept[-1] and row[i] > -np.inf]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000), size=st.integers(1, 2000), u=st.one_of(st.floats(0, 1, exclude_max=True), st.just(0.0))
)
def test_a_draw_is_the_token_at_its_share_of_all_weights(seed, size, u):
    rng = np.random.default_rng(seed)
    weights = np.where(rng.random(size) < 0.3, 0.0, rng.random(size))
    weights[rng.integers(size)] = 1.0
    token = draw(np.arange(size) * 3, weights, u) // 3
    assert weights[token] > 0
    before = weights[:token].sum() / weights.sum()
    assert before - 1e-12 <= u <= before + weights[token] / weights.sum() + 1e-12  # the sums are rounded


def test_the_largest_share_draws_the_last_token_that_can_be():
    weights = np.zeros(1200)
    weights[[3, 700]] = 0.1
    assert draw(np.arange(1200), weights, 1 - 2**-53) == 700


def test_the_repetition_penalty_counts_in_greedy_decoding_too():
    row = np.array([2.0, 1.9, -1.0], np.float32)
    assert sample(row, Request(0, [0], SamplingParams(repetition_penalty=1.5))) == 1
    assert sample(row, Request(0, [2], SamplingParams(repetition_penalty=1.5))) == 0


def test_greedy_takes_the_lowest_of_equal_logits():
    row = np.zeros((2, V), np.float32)
    row[0, [7, 30]] = 1
    row[1, [49, 3]] = 2
    assert [sample(row[0], Request(0, [1])), sample(row[1], Request(1, [1]))] == [7, 3]


def test_draws_follow_the_distribution():
    row = logits(4)[0]
    params = SamplingParams(temperature=1.0, top_k=5, seed=11)
    ids, weights = distribution(row, params)
    counts = Counter(draw(ids, weights, uniform(11, 0, position)) for position in range(4000))
    assert set(counts) <= set(ids.tolist())
    for token, share in zip(ids.tolist(), weights / weights.sum(), strict=True):
        # 5 standard deviations of a binomial of 4000 draws; the draws are fixed, so this does not flicker
        assert abs(counts[token] / 4000 - share) < 5 * (share * (1 - share) / 4000) ** 0.5


@given(st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
def test_philox_is_numpys(words):
    counter, key = words[:4], words[4:]
    # NumPy counts up before it draws.
    number = sum(word << 64 * i for i, word in enumerate(counter)) - 1
    before = [(number >> 64 * i) & (2**64 - 1) for i in range(4)]
    generator = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(before, np.uint64))
    assert philox(tuple(counter), tuple(key)) == tuple(generator.random_raw(4).tolist())


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_uniform_numbers_lie_in_range_and_repeat(seed, request_id, position):
    number = uniform(seed, request_id, position)
    assert 0 <= number < 1
    assert number == uniform(seed, request_id, position)
    assert number != uniform(seed, request_id, position + 1)
    assert number != uniform(seed, (request_id + 1) % 2**64, position)
    assert number != uniform((seed + 1) % 2**64, request_id, position)


def test_a_temperature_near_zero_is_greedy():
    row = logits(5)[0]
    assert sample(row, Request(0, [1], SamplingParams(temperature=1e-300))) == row.argmax()


def test_tokens_ruled_out_by_the_program_are_never_drawn():
    row = np.full(V, -np.inf, np.float32)
    row[[4, 9]] = 0.5
    for few in (0, 10):
        params = SamplingParams(temperature=2.0, top_k=few)
        assert {sample(row, Request(i, [1], params)) for i in range(40)} == {4, 9}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number from 1, and is 0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens"),
        ({"max_new_tokens": True}, "max_new_tokens"),
        ({"temperature": -1}, "temperature must be a number from 0, and is -1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 1.1}, "top_p must be between 0 and 1"),
        ({"min_p": -0.1}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"stop": ("",)}, "stop must be texts that are not empty"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(values, message):
    with pytest.raises(RequestError, match=message):
        SamplingParams(**values)


def test_numpy_numbers_are_numbers():
    params = SamplingParams(max_new_tokens=np.int64(3), temperature=np.float32(0.5), seed=np.uint64(2**64 - 1))
    assert sample(logits(1)[0], Request(np.int64(1), np.array([1, 2]), params)) in range(V)
