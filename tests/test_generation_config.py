"""What of a model's generation config is followed, and what is said not to be: as transformers' generate has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.errors import ModelError
from bossa.generation_config import (
    LENGTHS,
    NAMES,
    OTHERS,
    PROCESSORS,
    SAMPLING,
    Defaults,
    defaults,
    not_followed,
    read,
    read_token_ids,
)
from bossa.sampling.chain import logits_processors
from bossa.sampling.distribution import distribution
from bossa.sampling.logits import process
from bossa.sampling.parameters import PARAMETERS, SamplingParams
from support.generation import transformers_scores

V = 60
NEUTRAL: dict[str, list[Any]] = {
    "repetition_penalty": [1.0, 1, None],
    "no_repeat_ngram_size": [0, None],
    "encoder_no_repeat_ngram_size": [0, None],
    "encoder_repetition_penalty": [1.0, None],
    "bad_words_ids": [None],
    "suppress_tokens": [None],
    "begin_suppress_tokens": [None],
    "sequence_bias": [None],
    "forced_bos_token_id": [None],
    "forced_eos_token_id": [None],
    "exponential_decay_length_penalty": [None],
    "min_length": [0, None],
    "min_new_tokens": [0, None],
    "guidance_scale": [1, 1.0, None],
}
SET: dict[str, Any] = {
    "repetition_penalty": 1.2,
    "no_repeat_ngram_size": 3,
    "encoder_no_repeat_ngram_size": 2,
    "encoder_repetition_penalty": 1.5,
    "bad_words_ids": [[4]],
    "suppress_tokens": [0],
    "begin_suppress_tokens": [3, 4],
    "sequence_bias": [[[3], 2.0]],
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 1,
    "exponential_decay_length_penalty": [2, 1.1],
    "min_length": 5,
    "min_new_tokens": 5,
    "guidance_scale": 1.5,
}


def processors(**settings: Any) -> int:
    """How many logits processors transformers' generate runs with these settings."""
    from transformers import GenerationConfig

    from support import zoo

    model = zoo.build(zoo.MODELS["gpt2"].config())
    config = GenerationConfig(**settings, eos_token_id=1, pad_token_id=2, max_length=20)
    model._prepare_special_tokens(config, kwargs_has_attention_mask=True, device="cpu")
    ids = torch.tensor([[5, 6]])
    return len(model._get_logits_processor(config, input_ids_seq_length=2, encoder_input_ids=ids, device="cpu"))


@pytest.mark.parametrize("name", SET)
def test_what_transformers_makes_a_processor_of_is_followed_or_named_and_nothing_else(name: str) -> None:
    assert name in {*PROCESSORS, *OTHERS}
    assert processors(**{name: SET[name]}) > processors()
    found = read({name: SET[name]})
    if name in OTHERS:
        line = not_followed({name: SET[name]})
        assert line is not None
        assert name in line
        assert found == Defaults({}, {}, {})
    else:
        assert not_followed({name: SET[name]}) is None
        assert found.line({}) == f"{name} {SET[name]}"
        assert SamplingParams(**found.values).processes
    for value in NEUTRAL[name]:
        assert processors(**{name: value}) == processors()
        neutral = {name: value, "eos_token_id": 1}
        assert not_followed(neutral) is None
        assert read(neutral).line({}) is None
        assert SamplingParams(**read(neutral).values).greedy or name == "min_new_tokens"


def test_every_parameter_that_transformers_has_is_followed() -> None:
    own = {"seed", "eos_token_ids", "ignore_eos", "logprobs", "speculate", "stop", "logits_processors"}
    own |= {"choices", "regex", "json_schema"}
    assert {*PROCESSORS, *LENGTHS, *SAMPLING} - {"stop_strings"} == PARAMETERS.keys() - own


def test_sampling_is_followed_where_the_model_asks_for_it_alone() -> None:
    settings = {"temperature": 0.6, "top_p": 0.9, "min_p": 0.1}
    for asked in (settings, settings | {"do_sample": False}, settings | {"do_sample": None}):
        assert read(asked) == Defaults({}, {}, {})
    found = read(settings | {"do_sample": True, "repetition_penalty": 1.1})
    assert found.values == {"repetition_penalty": 1.1, "temperature": 0.6, "top_k": 50, "top_p": 0.9, "min_p": 0.1}
    assert found.line({}) == (
        "repetition_penalty 1.1, temperature 0.6, top_k 50 (transformers' own default), top_p 0.9, min_p 0.1"
    )
    assert found.line({"temperature": 0.0}) == "repetition_penalty 1.1"
    assert found.line({"temperature": 0.8, "top_k": 0}) == "repetition_penalty 1.1, top_p 0.9, min_p 0.1"
    assert read({"do_sample": True, "top_k": 0}).values["top_k"] == 0
    assert read({"do_sample": True}).values["temperature"] == 1.0


def test_a_length_that_is_given_goes_before_both_of_the_files() -> None:
    found = read({"max_length": 30, "min_new_tokens": 4})
    assert found.beneath({}) == {"max_length": 30, "min_new_tokens": 4}
    assert found.beneath({"max_new_tokens": 5}) == {"min_new_tokens": 4}
    assert found.beneath({"min_length": 5}) == {"max_length": 30}
    assert read({"max_length": 30, "max_new_tokens": 5}).values == {"max_new_tokens": 5}
    assert read({"stop_strings": "END"}).values == {"stop": ("END",)}


def test_what_is_no_value_is_named_and_the_rest_followed() -> None:
    asked = {"repetition_penalty": -1, "no_repeat_ngram_size": "2", "suppress_tokens": [1, 70], "bad_words_ids": [[70]]}
    assert read(asked, V).values == {"suppress_tokens": (1,)}
    assert not_followed(asked | {"num_beams": 4}, vocab_size=V) == (
        "generation_config.json sets num_beams 4, which transformers' generate follows and Bossa does not; and sets"
        " repetition_penalty -1, no_repeat_ngram_size 2, bad_words_ids [[70]], which cannot be followed: correct it"
    )


def test_settings_of_old_models_are_found_in_their_config_as_transformers_finds_them() -> None:
    assert read(defaults({}, {"n_layer": 2, "repetition_penalty": 1.3})).values == {"repetition_penalty": 1.3}
    assert read(defaults({}, {"text_config": {"suppress_tokens": [1]}})).values == {"suppress_tokens": (1,)}
    assert read(defaults({"eos_token_id": 1}, {"repetition_penalty": 1.3})) == Defaults({}, {}, {})  # its own file wins
    line = not_followed({}, {"n_layer": 2, "num_beams": 3})
    assert line == "config.json sets num_beams 3, which transformers' generate follows and Bossa does not"


FILES = st.fixed_dictionaries(
    {"do_sample": st.booleans()},
    optional={
        "temperature": st.sampled_from([0.5, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 3, 20]),
        "top_p": st.sampled_from([0.3, 0.9, 1.0]),
        "min_p": st.sampled_from([0.0, 0.1]),
        "typical_p": st.sampled_from([0.5, 1.0]),
        "epsilon_cutoff": st.sampled_from([0.0, 0.02, 1.0]),
        "eta_cutoff": st.sampled_from([0.0, 0.02]),
        "top_h": st.sampled_from([None, 0.6]),
        "repetition_penalty": st.sampled_from([1.0, 1.4]),
        "no_repeat_ngram_size": st.sampled_from([0, 2]),
        "suppress_tokens": st.sampled_from([None, [4, 5]]),
        "bad_words_ids": st.sampled_from([None, [[1, 2], [8]]]),
        "min_new_tokens": st.sampled_from([None, 0, 5]),
        "min_length": st.sampled_from([0, 4, 9]),
    },
)


@settings(max_examples=100, deadline=None)
@given(file=FILES, output=st.lists(st.integers(0, 9), max_size=5), seed=st.integers(0, 999))
def test_what_may_be_drawn_and_how_likely_it_is_follows_the_file_as_in_transformers(
    file: dict[str, Any], output: list[int], seed: int
) -> None:
    prompt = [2, 1, 2]
    row = np.random.default_rng(seed).normal(0, 3, V).astype(np.float32)
    params = SamplingParams(**{**read(file, V).values, "eos_token_ids": (3,)})
    processed = process(logits_processors(params, prompt, 23), [*prompt, *output], row)
    masks = {name: value for name, value in file.items() if name not in {*SAMPLING, "do_sample"}}
    scores = transformers_scores({**masks, "eos_token_id": 3}, prompt, output, row)
    assert np.array_equal(scores, processed)
    assert (params.temperature > 0) is file["do_sample"]
    if file["do_sample"]:
        warpers = {name: value for name, value in file.items() if name in {*SAMPLING, "do_sample"}}
        # In float64, so that a rounding decides of no token that lies at a filter's bound.
        scores = transformers_scores({**warpers, "eos_token_id": 3}, prompt, output, processed.astype(np.float64))
        expected = np.exp(scores - scores.max())
        ids, weights = distribution(processed, params)
        found = np.zeros(V)
        found[ids] = weights / weights.sum()
        assert np.array_equal(found > 0, expected > 0)
        assert found == pytest.approx(expected / expected.sum(), abs=1e-6)  # weights of all tokens are in float32


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats() | st.text("a1 \x1b\n", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(NAMES)), anything))
def test_whatever_the_file_has_there_is_followed_or_one_line(asked: dict[str, Any]) -> None:
    line = not_followed(asked, vocab_size=V)
    assert line is None or (line.isprintable() and "generation_config.json" in line)
    found = read(asked, V)
    SamplingParams(**found.values)
    said = found.line({})
    assert said is None or said.isprintable()


@given(anything)
def test_token_ids_are_ids_or_a_line(value: Any) -> None:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if all(type(one) is int for one in listed):
        assert list(read_token_ids({"eos_token_id": value}, "eos_token_id", "x")) == listed
    else:
        with pytest.raises(ModelError, match=r"^x: eos_token_id is ") as caught:
            read_token_ids({"eos_token_id": value}, "eos_token_id", "x")
        assert str(caught.value).isprintable()
