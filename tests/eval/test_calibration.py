"""Probabilities of choices, and these over their means: against the formula in plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from bossa.eval.calibration import calibrated, log_priors, normalized

SCORES = np.array([[-1.0, -2.0], [-1.0, -4.0], [-3.0, -3.5]])


def test_normalized_probabilities_add_up_to_one():
    expected = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
    assert np.exp(normalized(SCORES)) == pytest.approx(expected, rel=1e-14)  # roundings of float64
    assert np.exp(normalized(SCORES - 5000)) == pytest.approx(expected, rel=1e-9)  # which exp alone could not tell


def test_calibration_divides_by_the_mean_over_the_prompts():
    shares = np.exp(normalized(SCORES))
    ratio = shares / shares.mean(axis=0)
    expected = ratio / ratio.sum(axis=1, keepdims=True)
    assert np.exp(log_priors(SCORES)) == pytest.approx(shares.mean(axis=0), rel=1e-14)
    assert np.exp(calibrated(SCORES)) == pytest.approx(expected, rel=1e-12)


def test_a_choice_that_is_always_likelier_is_not_always_the_answer():
    assert normalized(SCORES).argmax(axis=1).tolist() == [0, 0, 0]
    assert calibrated(SCORES).argmax(axis=1).tolist() == [1, 0, 1]


def test_the_same_leaning_for_every_prompt_leaves_no_answer():
    found = calibrated(np.array([[-1.0, -2.0]] * 4))
    assert np.exp(found) == pytest.approx(np.full((4, 2), 0.5), rel=1e-12)


def test_choices_that_are_impossible_stay_so_and_are_no_nan():
    scores = np.array([[-1.0, -np.inf], [-2.0, -np.inf]])
    assert np.exp(calibrated(scores)).tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert np.exp(normalized(np.full((1, 4), -np.inf))) == pytest.approx(np.full((1, 4), 0.25))
