"""Measures of a few outcomes, counted by hand; and of many, by scikit-learn's definitions written out in NumPy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bossa.eval import Accuracy, summarize
from bossa.eval.measures import Perplexity
from support.outcomes import CHOICES, FOUR, outcome


def test_an_accuracy_has_the_standard_error_of_a_share():
    found = Accuracy(870, 957)
    assert found.value == pytest.approx(0.90909, abs=1e-5)
    assert found.standard_error == pytest.approx(0.009293, abs=1e-6)


def test_exact_match_ignores_white_space_alone():
    summary = summarize(FOUR)
    assert summary.exact_match == Accuracy(2, 4)
    assert summary.plain is None
    assert summarize([outcome(0)]).exact_match is None


def test_the_likeliest_choice_is_the_answer_and_the_first_of_equals():
    found = summarize(FOUR, choices=CHOICES).plain
    assert found is not None
    assert found.answers == [0, 1, 1, 0]
    assert found.confusion == [[2, 1], [0, 1]]
    assert found.accuracy == Accuracy(3, 4)
    assert found.margins == pytest.approx([1, -1, 2, 0])
    yes, no = found.classes
    assert (yes.support, yes.precision, yes.recall, yes.f1) == pytest.approx((3, 1, 2 / 3, 0.8))
    assert (no.support, no.precision, no.recall, no.f1) == pytest.approx((1, 0.5, 1, 2 / 3))
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)


def test_what_is_never_answered_has_no_precision_and_what_is_never_wanted_no_recall():
    found = summarize([outcome(0, (-1.0, -2.0))], choices=CHOICES).plain
    assert found is not None
    assert (found.classes[1].precision, found.classes[1].recall, found.classes[1].f1) == (None, None, None)
    assert found.macro_f1 == 1


def test_the_calibration_error_is_the_mean_distance_of_probability_and_accuracy():
    scores = [(math.log(0.95), math.log(0.05))] * 4 + [(math.log(0.65), math.log(0.35))] * 4
    outcomes = [outcome(int(place in (3, 6, 7)), each) for place, each in enumerate(scores)]
    found = summarize(outcomes, choices=CHOICES).plain
    assert found is not None
    assert [(each.count, each.accuracy) for each in found.bins if each.count] == [(4, 0.5), (4, 0.75)]
    assert found.calibration_error == pytest.approx((0.15 * 4 + 0.2 * 4) / 8)


def test_a_probability_of_one_is_in_the_last_bin():
    found = summarize([outcome(0, (-1.0, -2000.0))], choices=CHOICES).plain
    assert found is not None
    assert found.bins[-1].count == 1


def test_perplexity_is_over_tokens_and_bits_are_over_bytes_too():
    found = Perplexity(-6.0, 3, 12)
    assert found.value == pytest.approx(math.exp(2))
    assert found.bits_per_token == pytest.approx(2 / math.log(2))
    assert found.bits_per_byte == pytest.approx(0.5 / math.log(2))
    assert Perplexity(-1e6, 1, 1).value == math.inf
    summary = summarize(FOUR)
    assert summary.perplexity == Perplexity(-8.0, 16, 11)


def test_measures_of_many_are_those_of_their_definitions():
    generator = np.random.default_rng(3)
    scores, places = generator.normal(size=(200, 2)), generator.integers(0, 2, 200)
    outcomes = [outcome(int(place), tuple(row)) for place, row in zip(places, scores.tolist(), strict=True)]
    summary = summarize(outcomes, choices=CHOICES, calibrate=True)
    assert summary.plain is not None
    assert summary.calibrated is not None
    answers = scores.argmax(axis=1)
    assert summary.plain.accuracy.value == (answers == places).mean()
    assert np.array(summary.plain.confusion).sum() == 200
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert summary.priors == pytest.approx(shares.mean(axis=0))
    assert summary.calibrated.accuracy.value == ((shares / shares.mean(axis=0)).argmax(axis=1) == places).mean()
    assert summary.classification is summary.calibrated


@pytest.mark.parametrize("options", [{}, {"choices": CHOICES}, {"choices": CHOICES, "calibrate": True}])
def test_json_has_the_same_keys_whatever_is_measured(options):
    found = json.loads(json.dumps(summarize(FOUR, 1, **options).to_json()))
    assert list(found) == [
        *("records", "errors", "perplexity", "exact_match", "choices", "plain", "priors", "calibrated"),
    ]
    assert (found["records"], found["errors"]) == (4, 1)
    if options:
        assert list(found["plain"]) == ["accuracy", "macro_f1", "classes", "confusion", "calibration_error"]
        assert found["plain"]["accuracy"] == pytest.approx(
            {"value": 0.75, "standard_error": math.sqrt(0.75 * 0.25 / 4), "correct": 3, "total": 4}
        )
