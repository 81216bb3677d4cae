"""The logits processors of a request against those that transformers' generate puts together, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.sampling.chain import ORDER, logits_processors
from bossa.sampling.logits import process
from bossa.sampling.parameters import PARAMETERS, SamplingParams
from support.generation import transformers_scores

V = 50
ENDS = (3, 7)
TOKENS = st.integers(0, 9)
SEQUENCES = st.lists(st.lists(TOKENS, min_size=1, max_size=3), min_size=1, max_size=6, unique_by=tuple)
PENALTY = st.sampled_from([0.7, 1.3, 2.0])

SETTINGS: dict[str, st.SearchStrategy] = {
    "repetition_penalty": PENALTY,
    "encoder_repetition_penalty": PENALTY,
    "no_repeat_ngram_size": st.integers(1, 4),
    "encoder_no_repeat_ngram_size": st.integers(1, 4),
    "sequence_bias": SEQUENCES.flatmap(
        lambda found: st.tuples(
            *(st.tuples(st.just(tokens), st.floats(-9, 9, width=32)).map(list) for tokens in found)
        ).map(list)
    ),
    "bad_words_ids": SEQUENCES.map(lambda found: [*found, [3], [40]]),
    "suppress_tokens": st.lists(st.one_of(TOKENS, st.just(V + 3)), min_size=1, max_size=4),  # none that is forced
    "begin_suppress_tokens": st.lists(st.integers(0, V + 3), min_size=1, max_size=4),
    "forced_bos_token_id": st.integers(10, V - 1),
    "forced_eos_token_id": st.one_of(st.integers(41, V - 1), st.lists(st.integers(41, V - 1), min_size=1, max_size=3)),
    "min_length": st.integers(1, 9),
    "min_new_tokens": st.integers(0, 5),
    "exponential_decay_length_penalty": st.tuples(st.integers(0, 5), st.sampled_from([0.9, 1.1, 3.0])).map(list),
}


@settings(max_examples=200, deadline=None)
@given(
    asked=st.fixed_dictionaries({}, optional=SETTINGS),
    prompt=st.lists(TOKENS, min_size=1, max_size=6),
    output=st.lists(TOKENS, max_size=7),
    seed=st.integers(0, 99),
    new=st.integers(0, 3),
)
def test_what_processors_leave_is_what_transformers_leaves_to_the_bit(asked, prompt, output, seed, new):
    row = np.random.default_rng(seed).normal(0, 3, V).astype(np.float32)
    most = max(1, len(output) + new)
    own = SamplingParams(max_new_tokens=most, eos_token_ids=ENDS, **asked)
    expected = transformers_scores({**asked, "max_new_tokens": most, "eos_token_id": list(ENDS)}, prompt, output, row)
    found = process(logits_processors(own, prompt, len(prompt) + most), [*prompt, *output], row)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_changes_a_row_somewhere(name):
    """So that the comparison above is one of something."""
    value = {
        "sequence_bias": [[[1], 2.0], [[1, 2], -3.0]],
        "bad_words_ids": [[1, 2]],
        "forced_bos_token_id": 4,
        "forced_eos_token_id": 4,
        "exponential_decay_length_penalty": [0, 1.5],
        "repetition_penalty": 1.2,
        "encoder_repetition_penalty": 1.2,
        "suppress_tokens": [0],
        "begin_suppress_tokens": [0],
        "min_length": 9,
        "encoder_no_repeat_ngram_size": 1,
        "min_new_tokens": 9,
    }.get(name, 2)
    row = np.random.default_rng(0).normal(0, 3, V).astype(np.float32)
    chain = logits_processors(SamplingParams(eos_token_ids=ENDS, **{name: value}), [1], 4)
    assert len(chain) == 1
    before = row.copy()
    texts = ([1], [1, 1], [1, 2, 1], [1, 1, 1, 1])
    assert any(not np.array_equal(process(chain, tokens, row), row) for tokens in texts)
    assert np.array_equal(row, before)


def test_every_processor_has_a_parameter_and_every_such_parameter_a_processor():
    declared = {name for name, each in PARAMETERS.items() if each.kind == "processor"}
    assert declared == {*SETTINGS, "logits_processors"}
    assert {make.__name__ for make in ORDER} - {"minimum_length"} == declared - {
        *("min_length", "min_new_tokens", "logits_processors")
    }


def test_without_end_tokens_nothing_is_said_of_them():
    asked = {"min_length": 5, "min_new_tokens": 5, "exponential_decay_length_penalty": (0, 2.0)}
    assert logits_processors(SamplingParams(**asked), [1], 9) == ()
    assert logits_processors(SamplingParams(eos_token_ids=ENDS, ignore_eos=True, **asked), [1], 9) == ()
    [words] = logits_processors(SamplingParams(eos_token_ids=ENDS, ignore_eos=True, bad_words_ids=[[3]]), [1], 9)
    assert words([1], np.zeros(V, np.float32))[3] == -np.inf


def test_the_growth_of_end_tokens_ends_where_float32_does():
    params = SamplingParams(eos_token_ids=ENDS, exponential_decay_length_penalty=(0, 1e300))
    row = np.array([1, 2, 3, 4, 5, 6, 7, -np.inf, 9], np.float32)
    found = process(logits_processors(params, [1], 900), [1] * 500, row)
    assert found[3] == np.finfo(np.float32).max
    assert found[7] == -np.inf
    assert found.argmax() == 3


def test_ids_that_no_vocabulary_has_are_left_out():
    params = SamplingParams(eos_token_ids=(-1, 3, 99), min_length=5, suppress_tokens=(-1, 98))
    found = process(logits_processors(params, [1], 9), [1], np.zeros(V, np.float32))
    assert list(np.flatnonzero(found)) == [3]
