"""Prompts that are too long."""

from __future__ import annotations

import pytest

from bossa.engine.truncation import fit_prompt
from bossa.errors import RequestError


def test_a_prompt_that_leaves_room_for_one_token_is_as_it_was():
    assert fit_prompt(range(9), 10, 20) == list(range(9))


def test_a_prompt_that_fills_everything_is_refused_with_its_length():
    with pytest.raises(RequestError, match="the prompt has 10 tokens, and at most 9 fit"):
        fit_prompt(range(10), 10, 1)


def test_truncation_drops_tokens_on_its_side_to_make_room_for_all_new_ones():
    assert fit_prompt(range(9), 10, 4, "left") == [3, 4, 5, 6, 7, 8]
    assert fit_prompt(range(9), 10, 4, "right") == [0, 1, 2, 3, 4, 5]
    assert fit_prompt(range(6), 10, 4, "left") == list(range(6))


def test_truncation_leaves_at_least_one_token():
    assert fit_prompt(range(9), 10, 30, "left") == [8]
    assert fit_prompt(range(9), 10, 30, "right") == [0]


def test_an_unknown_truncation_is_refused():
    with pytest.raises(RequestError, match="must be left or right, and is 'middle'"):
        fit_prompt([1], 10, 1, "middle")
