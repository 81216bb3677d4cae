"""The declarations: what is refused and how, and that all that is made from them agrees."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

import click
import numpy as np
import pytest

from bossa.cli.run import command
from bossa.errors import RequestError
from bossa.sampling.calls import Sampling
from bossa.sampling.chain import ORDER
from bossa.sampling.parameters import FILTERS, PARAMETERS, SamplingParams


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
        ({"min_new_tokens": -1}, "min_new_tokens must be a whole number from 0, or None, and is -1"),
        ({"max_length": 0}, "max_length must be a whole number from 1, or None, and is 0"),
        ({"typical_p": 0}, "typical_p must be above 0, up to 1, and is 0"),
        ({"top_h": 1.5}, "top_h must be above 0, up to 1, or None, and is 1.5"),
        ({"bad_words_ids": [[]]}, "bad_words_ids must be a list of lists of token ids, none of them empty"),
        ({"bad_words_ids": [3]}, "bad_words_ids must be a list of lists"),
        ({"sequence_bias": [[[1], "2"]]}, "sequence_bias must be pairs of a list of token ids and a number"),
        ({"sequence_bias": [[[1], float("inf")]]}, "sequence_bias must be pairs"),
        ({"sequence_bias": {(): 2.0}}, "sequence_bias must be pairs"),
        ({"exponential_decay_length_penalty": [1]}, "exponential_decay_length_penalty must be a pair of a count"),
        ({"exponential_decay_length_penalty": [1, 0]}, "exponential_decay_length_penalty must be a pair of a count"),
        ({"forced_eos_token_id": "end"}, "forced_eos_token_id must be a list of token ids"),
        ({"logits_processors": [3]}, "logits_processors must be a list of functions of the token ids .*, and is 3"),
        ({"logits_processors": print}, "logits_processors must be a list of functions"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(values, message):
    with pytest.raises(RequestError, match=message):
        SamplingParams(**values)


def test_values_are_kept_in_one_form_whatever_they_came_in():
    params = SamplingParams(
        sequence_bias={(1, 2): -np.inf, (np.int64(3),): 2},
        bad_words_ids=np.array([[1, 2], [3, 4]]).tolist(),
        suppress_tokens=np.array([5, 6]),
        forced_eos_token_id=np.int32(7),
        exponential_decay_length_penalty=[2, 1.5],
    )
    assert params.sequence_bias == (((1, 2), -np.inf), ((3,), 2.0))
    assert params.bad_words_ids == ((1, 2), (3, 4))
    assert params.suppress_tokens == (5, 6)
    assert params.forced_eos_token_id == (7,)
    assert params.exponential_decay_length_penalty == (2, 1.5)
    assert hash(params) == hash(params)
    assert sorted(token for _, token in params.tokens()) == [1, 1, 2, 2, 3, 3, 4, 5, 6, 7]


def test_neutral_values_are_right_and_change_nothing():
    neutral = SamplingParams()
    assert neutral.greedy
    for name, each in PARAMETERS.items():
        assert getattr(neutral, name) == each.neutral
        assert each.check(name, each.neutral) == each.neutral


# What is made from the declarations, and what repeats them

DOCS = Path(__file__).parents[2] / "docs"
WIDER = {
    *("stop", "sequence_bias", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id"),
    *("logits_processors", "choices", "json_schema"),
}
"""What calls take in more forms than ``SamplingParams`` keeps."""


def test_calls_take_what_is_declared_but_for_the_end_tokens():
    assert [*Sampling.__annotations__] == [name for name in PARAMETERS if name != "eos_token_ids"]
    names = {"LogitsProcessor": object}
    kept, taken = get_type_hints(SamplingParams, localns=names), get_type_hints(Sampling, localns=names)
    assert {name for name in taken if taken[name] != kept[name]} == WIDER


def test_the_command_has_the_options_that_are_declared():
    options = {param.name: param for param in command.params if isinstance(param, click.Option)}
    for name, each in PARAMETERS.items():
        declared = each.option
        assert (name in options) == (declared is not None)
        if declared is not None:
            assert options[name].help == declared.help
            assert options[name].multiple == declared.several


def row_of(name):
    """A parameter as docs/sampling.md has it."""
    each = PARAMETERS[name]
    neutral = "none" if each.neutral == () else f"`{each.neutral}`"
    option = each.option
    written = "" if option is None else f"`--{option.name or name.replace('_', '-')}`"
    return f"| `{name}` | {neutral} | {written} | {each.meaning} |"


def test_the_documents_have_them_as_they_are_declared():
    lines = (DOCS / "sampling.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if re.match(r"\| `\w+` \|", line)]
    assert rows == [row_of(name) for name in PARAMETERS]
    commands = (DOCS / "cli.md").read_text(encoding="utf-8")
    for name, each in PARAMETERS.items():
        if each.option is not None:
            assert re.search(rf"`--{each.option.name or name.replace('_', '-')}[` ]", commands)


def test_the_order_in_the_documents_is_the_order_in_which_it_is_done():
    page = (DOCS / "sampling.md").read_text(encoding="utf-8")
    order = re.findall(r"`(\w+)`", page.split("## Order")[1].split("\n\n")[1])
    made = [make.__name__ for make in ORDER]
    made[made.index("minimum_length") : made.index("minimum_length") + 1] = ["min_length", "min_new_tokens"]
    filters = ["top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"]
    assert order == made + filters  # the filters as their own test compares them with transformers
    assert set(filters) == FILTERS
