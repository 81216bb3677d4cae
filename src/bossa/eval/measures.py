"""Measures over all outcomes: exact match, accuracy and what it is made of, calibration, perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bossa.eval.calibration import Doubles, calibrated, log_priors, normalized
from bossa.eval.outcome import Outcome

BINS = 10
"""Of equal width, that probabilities are sorted into."""


@dataclass(frozen=True)
class Accuracy:
    """The share of what is correct."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        return self.correct / self.total

    @property
    def standard_error(self) -> float:
        """That of a share of independent draws: sqrt(p (1 - p) / n)."""
        return math.sqrt(self.value * (1 - self.value) / self.total)

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "standard_error": self.standard_error,
            "correct": self.correct,
            "total": self.total,
        }


@dataclass(frozen=True)
class ClassScore:
    """How one choice was answered.

    Attributes:
        support: references that are this choice.
        precision: the share of its answers that are right; None where it is never the answer.
        recall: the share of its references that are found; None where there are none.
    """

    choice: str
    support: int
    precision: float | None
    recall: float | None
    f1: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "choice": self.choice,
            "support": self.support,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }


@dataclass(frozen=True)
class Bin:
    """Answers of about one probability: how many they are, the mean of it, and the share of them that is right."""

    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Classification:
    """What is answered where choices are compared.

    Attributes:
        choices: the answers that there are.
        logprobs: of each choice [n, C] given that it is one of them, natural logarithms.
        references, answers: places among the choices [n]; of choices that are equally likely the first is the answer.
    """

    choices: tuple[str, ...]
    logprobs: Doubles
    references: Sequence[int]

    @property
    def answers(self) -> list[int]:
        return [int(answer) for answer in self.logprobs.argmax(axis=1)]

    @property
    def probabilities(self) -> Doubles:
        """[n, C]"""
        probabilities: Doubles = np.exp(self.logprobs)
        return probabilities

    @property
    def margins(self) -> list[float]:
        """How much the reference's log probability is above that of the likeliest other choice."""
        margins = []
        for row, reference in zip(self.logprobs, self.references, strict=True):
            others = np.delete(row, reference)
            margins.append(float(row[reference] - others.max()) if len(others) else math.inf)
        return margins

    @property
    def confusion(self) -> list[list[int]]:
        """How often a reference (row) was answered so (column)."""
        counts = [[0] * len(self.choices) for _ in self.choices]
        for reference, answer in zip(self.references, self.answers, strict=True):
            counts[reference][answer] += 1
        return counts

    @property
    def accuracy(self) -> Accuracy:
        confusion = self.confusion
        return Accuracy(sum(row[place] for place, row in enumerate(confusion)), len(self.references))

    @property
    def classes(self) -> list[ClassScore]:
        confusion = self.confusion
        scores = []
        for place, choice in enumerate(self.choices):
            right, wanted = confusion[place][place], sum(confusion[place])
            answered = sum(row[place] for row in confusion)
            scores.append(
                ClassScore(
                    choice,
                    wanted,
                    _share(right, answered),
                    _share(right, wanted),
                    _share(2 * right, wanted + answered),
                )
            )
        return scores

    @property
    def macro_f1(self) -> float:
        """The mean of F1 over the choices that are references or answers."""
        found = [score.f1 for score in self.classes if score.f1 is not None]
        return sum(found) / len(found)

    @property
    def bins(self) -> list[Bin]:
        """Answers by their probability, in bins of equal width from 0 to 1."""
        confidence = self.probabilities.max(axis=1)
        right = np.array(self.answers) == np.array(self.references)
        places = np.minimum((confidence * BINS).astype(int), BINS - 1)
        bins = []
        for place in range(BINS):
            inside = places == place
            count = int(inside.sum())
            means = (float(confidence[inside].mean()), float(right[inside].mean())) if count else (None, None)
            bins.append(Bin(count, *means))
        return bins

    @property
    def calibration_error(self) -> float:
        """The expected calibration error: how far probability and accuracy are apart, in the mean over answers.

        Source: Guo et al., "On Calibration of Modern Neural Networks" (2017).
        """
        apart = (
            each.count * abs(each.confidence - each.accuracy)
            for each in self.bins
            if each.confidence is not None and each.accuracy is not None
        )
        return sum(apart) / len(self.references)

    def to_json(self) -> dict[str, Any]:
        return {
            "accuracy": self.accuracy.to_json(),
            "macro_f1": self.macro_f1,
            "classes": [score.to_json() for score in self.classes],
            "confusion": self.confusion,
            "calibration_error": self.calibration_error,
        }


@dataclass(frozen=True)
class Perplexity:
    """How likely the references are.

    Attributes:
        log_likelihood: of all of them, a natural logarithm.
        tokens, bytes: of all of them.
    """

    log_likelihood: float
    tokens: int
    bytes: int

    @property
    def value(self) -> float:
        """The exponential of the mean negative log probability of a token."""
        mean = -self.log_likelihood / self.tokens
        return math.exp(mean) if mean < 700 else math.inf

    @property
    def bits_per_token(self) -> float:
        return -self.log_likelihood / self.tokens / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers, as bits per token is not."""
        return -self.log_likelihood / self.bytes / math.log(2)

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "log_likelihood": self.log_likelihood,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "bits_per_token": self.bits_per_token,
            "bits_per_byte": self.bits_per_byte,
        }


@dataclass(frozen=True)
class Summary:
    """All measures of an evaluation.

    Attributes:
        records, errors: how many were evaluated, and how many could not be.
        exact_match: None where nothing was generated.
        plain: by the model's probabilities; None without choices.
        calibrated: by those over the priors; None where that was not asked for.
        priors: the mean probability of each choice.
    """

    records: int
    errors: int
    perplexity: Perplexity
    exact_match: Accuracy | None = None
    plain: Classification | None = None
    calibrated: Classification | None = None
    priors: tuple[float, ...] = ()

    @property
    def classification(self) -> Classification | None:
        """The one that answers come from."""
        return self.calibrated or self.plain

    def to_json(self) -> dict[str, Any]:
        """The same keys for every evaluation; None for what was not measured."""
        return {
            "records": self.records,
            "errors": self.errors,
            "perplexity": self.perplexity.to_json(),
            "exact_match": self.exact_match.to_json() if self.exact_match else None,
            "choices": list(self.plain.choices) if self.plain else None,
            "plain": self.plain.to_json() if self.plain else None,
            "priors": list(self.priors) if self.plain else None,
            "calibrated": self.calibrated.to_json() if self.calibrated else None,
        }


def summarize(
    outcomes: Sequence[Outcome], errors: int = 0, choices: tuple[str, ...] = (), calibrate: bool = False
) -> Summary:
    """The measures of outcomes, of which there is at least one.

    Args:
        errors: records that could not be evaluated.
        choices: what each outcome has log probabilities of.
        calibrate: whether answers are also taken over the priors.
    """
    perplexity = Perplexity(
        sum(outcome.log_likelihood for outcome in outcomes),
        sum(outcome.tokens for outcome in outcomes),
        sum(len(outcome.example.reference.encode()) for outcome in outcomes),
    )
    exact = [outcome.is_exact for outcome in outcomes if outcome.is_exact is not None]
    match = Accuracy(sum(exact), len(exact)) if exact else None
    if not choices:
        return Summary(len(outcomes), errors, perplexity, match)
    scores = np.array([outcome.choices for outcome in outcomes], np.float64)
    references = [place for outcome in outcomes if (place := outcome.example.choice) is not None]
    return Summary(
        len(outcomes),
        errors,
        perplexity,
        match,
        Classification(choices, normalized(scores), references),
        Classification(choices, calibrated(scores), references) if calibrate else None,
        tuple(float(prior) for prior in np.exp(log_priors(scores))),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
