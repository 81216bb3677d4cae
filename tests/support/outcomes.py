"""Outcomes to measure, made by hand."""

from __future__ import annotations

from bossa.eval import Example, Outcome

CHOICES = ("yes", "no")


def outcome(
    place: int, scores: tuple[float, ...] = (), *, index: int = 0, generated: str | None = None, prompt: str = "good?"
) -> Outcome:
    """One whose reference is the choice at ``place``, with log probabilities of all choices."""
    example = Example(index, "reviews.jsonl", index + 1, f"r{index}", prompt, CHOICES[place], place)
    return Outcome(example, -2.0, 4, generated, scores)


FOUR = [
    outcome(0, (-1.0, -2.0), index=0, generated=" yes"),
    outcome(0, (-2.0, -1.0), index=1, generated="yes, it is"),
    outcome(1, (-3.0, -1.0), index=2, generated="no\n"),
    outcome(0, (-1.5, -1.5), index=3, generated="no"),
]
