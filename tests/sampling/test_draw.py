"""The draw against NumPy's Philox, and the distribution that it should have."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.sampling.distribution import distribution
from bossa.sampling.draw import draw, philox, uniform
from bossa.sampling.parameters import SamplingParams


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


def test_draws_follow_the_distribution():
    row = np.random.default_rng(4).normal(0, 3, 50).astype(np.float32)
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
