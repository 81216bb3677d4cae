"""The tokens that may be drawn and their probabilities, against transformers' warpers; and each filter by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.sampling.chain import logits_processors
from bossa.sampling.distribution import distribution
from bossa.sampling.logits import process
from bossa.sampling.parameters import PARAMETERS, SamplingParams
from bossa.sampling.top_k import top_k
from bossa.sampling.top_p import top_p
from support.generation import transformers_scores

V = 150
FILTERS: dict[str, st.SearchStrategy] = {
    "top_k": st.sampled_from([0, 1, 3, 10, V, 3 * V]),
    "top_p": st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    "min_p": st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    "typical_p": st.sampled_from([0.1, 0.5, 0.95, 1.0]),
    "epsilon_cutoff": st.sampled_from([0.0, 0.003, 0.05, 0.9, 1.0]),
    "eta_cutoff": st.sampled_from([0.0, 0.003, 0.05, 0.9, 1.0]),
    "top_h": st.sampled_from([0.05, 0.4, 0.93]),
}


def test_every_filter_is_among_those_compared():
    assert {name for name, each in PARAMETERS.items() if each.kind == "filter"} == FILTERS.keys()


@settings(max_examples=200, deadline=None)
@given(
    asked=st.fixed_dictionaries({"temperature": st.sampled_from([0.3, 0.7, 1.0, 1.9])}, optional=FILTERS),
    penalty=st.sampled_from([0.8, 1.0, 1.5]),
    suppressed=st.lists(st.integers(0, V - 1), max_size=30),
    seed=st.integers(0, 10_000),
)
def test_the_distribution_is_that_of_transformers(asked, penalty, suppressed, seed):
    row = np.random.default_rng(seed).normal(0, 3, V).astype(np.float32)
    before = {"repetition_penalty": penalty, "suppress_tokens": suppressed}
    params = SamplingParams(**asked, **before)
    seen = [1, 5, 5, 20, 49]
    processed = process(logits_processors(params, seen, 99), seen, row)
    # Warped in float64, so that a rounding decides of no token that lies at a filter's bound.
    scores = transformers_scores({"top_k": 0, **asked, "do_sample": True}, seen, [], processed.astype(np.float64))
    expected = np.exp(scores - scores.max())
    expected /= expected.sum()
    ids, weights = distribution(processed, params)
    found = np.zeros(V)
    found[ids] = weights / weights.sum()
    assert np.array_equal(found > 0, expected > 0)
    assert found == pytest.approx(expected, abs=1e-6)  # weights of a whole vocabulary are in float32


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


@pytest.mark.parametrize(
    "how",
    [{"typical_p": 0.2}, {"epsilon_cutoff": 0.5}, {"eta_cutoff": 0.5}, {"top_h": 0.5}, {"top_h": 0.5, "top_k": 2}],
)
@pytest.mark.parametrize("temperature", [5e-324, 1e-3, 1e300])
def test_a_filter_leaves_a_token_that_can_be_at_any_temperature(how, temperature):
    row = np.array([-np.inf, 1.0, 3.0, 3.0, -np.inf, -4.0], np.float32)
    ids, weights = distribution(row, SamplingParams(temperature=temperature, **how))
    assert set(ids[weights > 0]) <= {1, 2, 3, 5}
    assert 0 < weights.sum() < np.inf
