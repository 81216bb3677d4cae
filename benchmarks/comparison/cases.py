"""What is measured: rates of a loaded model, and whole processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CONTEXT, STEPS = 32, 32
"""Decoding starts from this many tokens and goes on for this many steps: contexts of 32 to 64."""


@dataclass(frozen=True)
class RateCase:
    """Prefill of one prompt of ``size`` tokens, or decoding of ``size`` sequences; tokens a second."""

    kind: str
    size: int

    @property
    def name(self) -> str:
        return f"prefill {self.size}" if self.kind == "prefill" else f"decode B{self.size}"

    def request(self, repeat: int, settings: dict[str, Any]) -> dict[str, Any]:
        """What a worker is asked."""
        common = {"do": self.kind, "repeat": repeat, "settings": settings}
        if self.kind == "prefill":
            return {**common, "length": self.size}
        return {**common, "batch": self.size, "context": CONTEXT, "steps": STEPS}


@dataclass(frozen=True)
class JobCase:
    """A whole process: so many prompts, so many new tokens each; seconds and peak memory.

    Attributes:
        rounds: it runs in so many of the first; in all without.
        after: the shorter job in which an engine has to keep up to run this one.
    """

    name: str
    prompts: int
    new: int
    rounds: int | None = None
    after: str | None = None


def rate_cases(prompts: Sequence[int], batches: Sequence[int]) -> list[RateCase]:
    return [*(RateCase("prefill", length) for length in prompts), *(RateCase("decode", batch) for batch in batches)]


def job_cases(total: int) -> list[JobCase]:
    """The whole processes, for a file of so many prompts; the long one in two rounds, by engines that can win it."""
    short = JobCase("20 prompts, 20 tokens each", min(20, total), 20)
    cases = [JobCase("one prompt, one token", 1, 1), short]
    if total > 20:
        cases.append(JobCase(f"{total} prompts, 20 tokens each", total, 20, rounds=2, after=short.name))
    return cases


def counts(text: str) -> list[int]:
    """Numbers with commas between them; none for an empty text.

    Raises:
        ValueError: something is not a count from 1.
    """
    numbers = [int(part) for part in text.split(",") if part.strip()]
    if any(number < 1 for number in numbers):
        raise ValueError(f"{text!r}: counts start at 1")
    return numbers
