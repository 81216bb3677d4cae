"""Masks and biases of written-out attention, told apart by their values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bossa.errors import CompileError
from bossa.frontend.operand import fresh
from bossa.frontend.scores import Score, Term, classify, window_of

LENGTH = 24
Q = fresh("value", "q", (2, None, 4))


def _causal(length: int) -> torch.Tensor:
    return torch.full((length, length), -math.inf).triu(1)


def _window(length: int, window: int) -> torch.Tensor:
    i, j = torch.arange(length)[:, None], torch.arange(length)[None, :]
    return torch.where((j <= i) & (j > i - window), 0.0, -math.inf)


def test_a_causal_mask_has_no_window_and_no_bias() -> None:
    seen = classify((Term(_causal),), 2, LENGTH, "here")
    assert (seen.window, seen.bias) == (0, None)


@pytest.mark.parametrize("window", [1, 2, 7, 23])
def test_a_window_is_measured(window: int) -> None:
    assert classify((Term(lambda t: _window(t, window)),), 2, LENGTH, "here").window == window


def test_masks_may_be_large_numbers_scaled_and_in_several_terms() -> None:
    terms = (
        Term(lambda t: _causal(t).clamp(min=-1.0), factor=3e38),
        Term(lambda t: _window(t, 5).clamp(min=-3e38)[None, None]),
    )
    assert classify(terms, 2, LENGTH, "here").window == 5


def test_ten_thousand_hides_where_a_term_is_nothing_else() -> None:
    def mask(length: int) -> torch.Tensor:
        return -1e4 * torch.ones(length, length).triu(1)

    assert classify((Term(mask),), 1, LENGTH, "here").window == 0
    with pytest.raises(CompileError, match="more than the key position"):
        classify((Term(lambda t: mask(t) / 100),), 1, LENGTH, "here")


@pytest.mark.parametrize("form", ["by key", "by distance"])
def test_alibi_is_a_bias_by_key_position_in_either_form(form: str) -> None:
    slopes = torch.tensor([0.5, 0.125])[:, None, None]

    def bias(length: int) -> torch.Tensor:
        i, j = torch.arange(length)[:, None], torch.arange(length)[None, :]
        return slopes * (j if form == "by key" else j - i)

    seen = classify((Term(_causal), Term(bias)), 2, LENGTH, "here")
    assert seen.bias is not None
    got = seen.bias - seen.bias[:1]
    np.testing.assert_allclose(got, np.arange(LENGTH)[:, None] * [[0.5, 0.125]], atol=1e-4)  # as far as it is checked


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (lambda t: torch.zeros(t, t), "not causal"),
        (lambda t: _causal(t).flip(0), "not causal"),
        (lambda t: _causal(t) + _window(t, t).flip(1).clamp(min=-3e38).tril(-3), "neither causal nor a sliding window"),
        (lambda t: _causal(t) + torch.arange(t)[:, None] * torch.arange(t)[None, :] / 50, "more than the key position"),
        (lambda t: torch.stack([_causal(t), _window(t, 3)]), "differ by head"),
        (lambda t: torch.where(torch.arange(t) < 2, -math.inf, 0.0)[None], "from every token"),
        (lambda t: torch.ones(t, t, dtype=torch.bool).tril(), "a boolean"),
        (lambda t: torch.zeros(2, 1, t, t), "is not supported"),
        (lambda t: _causal(t) + torch.arange(t) * (1.0 / t), "depends on the length"),
        (lambda t: _window(t, max(t // 3, 1)), "depends on the length"),
    ],
)
def test_other_terms_are_refused(tensor, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CompileError, match=f"^here: .*{message}"):
        classify((Term(tensor),), 2, LENGTH, "here")


def test_scores_may_be_multiplied_by_their_mask_and_by_nothing_else() -> None:
    def lower(length: int) -> torch.Tensor:
        return torch.ones(length, length).tril()

    assert classify((Term(_causal),), 1, LENGTH, "here", (lower,)).window == 0
    with pytest.raises(CompileError, match="multiplied by something that is not their mask"):
        classify((Term(_causal),), 1, LENGTH, "here", (lambda t: lower(t).tril(-1),))
    with pytest.raises(CompileError, match="multiplied by something that is not their mask"):
        classify((Term(_causal),), 1, LENGTH, "here", (lambda t: lower(t) * 2,))


def test_a_mask_of_truth_values_gives_its_window() -> None:
    assert window_of(torch.ones(5, 5, dtype=torch.bool).tril(), "here") == 0
    assert window_of(_window(9, 4) == 0, "here") == 4
    with pytest.raises(CompileError, match="not causal"):
        window_of(torch.ones(5, 5, dtype=torch.bool), "here")


def test_scores_keep_their_scale_cap_and_terms_in_step() -> None:
    score = Score(Q, Q).scaled(0.25, "here").scaled(0.1, "here").capped("here").scaled(30.0, "here")
    assert (score.softcap, score.scale) == (30.0, pytest.approx(0.25 * 0.1 * 30))
    scaled = Score(Q, Q).plus(_causal, 1.0, "here").scaled(0.5, "here")
    assert [term.factor for term in scaled.terms] == [0.5]
    for wrong in (lambda: score.scaled(2.0, "here"), lambda: score.capped("here"), lambda: scaled.capped("here")):
        with pytest.raises(CompileError, match=r"^here: "):
            wrong()
