"""The record that each prompt gets in the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bossa.dataset import BadRecord
from bossa.eval.measures import Summary
from bossa.eval.outcome import Outcome


@dataclass(frozen=True)
class Judged:
    """An outcome with its answer: the likeliest choice, or else what was generated.

    Attributes:
        answer: None where there is neither.
        probabilities: of each choice.
        margin: how much the reference's log probability is above that of the likeliest other choice.
    """

    outcome: Outcome
    answer: str | None
    correct: bool | None
    probabilities: tuple[float, ...] = ()
    margin: float | None = None

    @property
    def confidence(self) -> float:
        """The probability of the answer among the choices."""
        return max(self.probabilities, default=0.0)


def judged(outcomes: Sequence[Outcome], summary: Summary) -> list[Judged]:
    """Each outcome with its answer."""
    found = summary.classification
    if found is None:
        return [
            Judged(
                outcome, outcome.generated if outcome.generated is None else outcome.generated.strip(), outcome.is_exact
            )
            for outcome in outcomes
        ]
    rows = zip(outcomes, found.answers, found.probabilities.tolist(), found.margins, strict=True)
    return [
        Judged(outcome, found.choices[answer], answer == outcome.example.choice, tuple(probabilities), margin)
        for outcome, answer, probabilities, margin in rows
    ]


def output_fields(
    answers: Sequence[Judged], errors: Sequence[BadRecord], choices: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The records of the output, in the order of the input: of those that were evaluated, and of the errors."""
    records = [(each.outcome.example.index, _answer_fields(each, choices)) for each in answers]
    records += [(error.index, _error_fields(error)) for error in errors]
    return (fields for _, fields in sorted(records, key=lambda record: record[0]))


def _answer_fields(each: Judged, choices: Sequence[str]) -> dict[str, Any]:
    outcome = each.outcome
    fields: dict[str, Any] = {
        "id": outcome.example.id,
        "prompt": outcome.example.prompt,
        "reference": outcome.example.reference,
        "answer": each.answer,
        "correct": each.correct,
        "log_likelihood": outcome.log_likelihood,
        "tokens": outcome.tokens,
    }
    if outcome.generated is not None:
        fields |= {"generated": outcome.generated, "exact_match": outcome.is_exact}
    if choices:
        fields |= {
            "probabilities": dict(zip(choices, each.probabilities, strict=True)),
            "log_probabilities": dict(zip(choices, outcome.choices, strict=True)),
        }
    return fields


def _error_fields(error: BadRecord) -> dict[str, Any]:
    return {
        "id": error.fields.get("id", error.index),
        "error": {"file": error.file, "line": error.line, "reason": error.reason},
    }
