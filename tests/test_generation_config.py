"""What of a model's generation config is said not to be followed: what transformers' generate makes a processor of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bossa.errors import ModelError
from bossa.generation_config import GREEDY, SAMPLING, not_followed, read_token_ids

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
def test_what_transformers_makes_a_processor_of_is_named_and_nothing_else(name: str) -> None:
    assert name in GREEDY
    assert processors(**{name: SET[name]}) > processors()
    line = not_followed({name: SET[name]})
    assert line is not None
    assert name in line
    for value in NEUTRAL[name]:
        assert processors(**{name: value}) == processors()
        assert not_followed({name: value, "eos_token_id": 1}) is None


def test_sampling_is_named_where_the_model_asks_for_it_alone() -> None:
    settings = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1}
    assert not_followed(settings) is None
    assert not_followed(settings | {"do_sample": False}) is None
    line = not_followed(settings | {"do_sample": True, "repetition_penalty": 1.1})
    assert line is not None
    assert "\n" not in line
    for name in (*settings, "do_sample", "repetition_penalty 1.1"):
        assert name in line


def test_settings_of_old_models_are_found_in_their_config_as_transformers_finds_them() -> None:
    line = not_followed({}, {"n_layer": 2, "repetition_penalty": 1.3})
    assert line == ("config.json sets repetition_penalty 1.3, which transformers' generate follows and Bossa does not")
    assert not_followed({}, {"text_config": {"suppress_tokens": [1]}}) is not None
    assert not_followed({"eos_token_id": 1}, {"repetition_penalty": 1.3}) is None  # its own file wins


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats() | st.text("a1 \x1b\n", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["do_sample", *GREEDY, *SAMPLING]), anything))
def test_whatever_the_file_has_there_is_one_line_or_none(settings: dict[str, Any]) -> None:
    line = not_followed(settings)
    assert line is None or (line.isprintable() and "generation_config.json" in line)


@given(anything)
def test_token_ids_are_ids_or_a_line(value: Any) -> None:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if all(type(one) is int for one in listed):
        assert list(read_token_ids({"eos_token_id": value}, "eos_token_id", "x")) == listed
    else:
        with pytest.raises(ModelError, match=r"^x: eos_token_id is ") as caught:
            read_token_ids({"eos_token_id": value}, "eos_token_id", "x")
        assert str(caught.value).isprintable()
