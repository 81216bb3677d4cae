"""Guesses at the next tokens by prompt look-up: what followed the sequence's latest tokens the last time.

The guesses run as rows beside the sequence's own row, and each is kept only if plain decoding chooses it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

LONGEST_MATCH = 3
"""Tokens that are looked up at most."""

STEP_IN_ROWS = 7
"""What a step costs before its first row, in rows: on CPUs, about as many as share one reading of the weights."""

FIRST_RATES = (0.3, 0.5, 0.7)
"""How often a guess is taken to hold, after a match of one, two and three tokens, before there is experience."""

LEARNING = 0.15
"""How much one guess that held or failed counts against all before it."""

LONGEST_WAIT = 64
"""Chances that are let go at most, where guesses fail, before one is tried again."""


@dataclass
class _Trust:
    """Experience with guesses after matches of one length.

    Attributes:
        rate: the share of guesses that hold.
        wait: where they are not worth their rows, every so many chances one is tried.
        passed: chances let go since.
    """

    rate: float
    wait: int = 1
    passed: int = 0

    def length(self, worth: float) -> int:
        """How many guesses to run, so that the last still holds with the probability ``worth``."""
        if self.rate >= worth:
            return int(log(worth) / log(min(self.rate, 0.99)))
        self.passed += 1
        if self.passed < self.wait:
            return 0
        self.passed = 0
        return 1

    def learn(self, held: int, failed: bool) -> None:
        for _ in range(held):
            self.rate += (1 - self.rate) * LEARNING
            self.wait = max(1, self.wait // 2)
        if failed:
            self.rate -= self.rate * LEARNING
            self.wait = min(2 * self.wait, LONGEST_WAIT)


def worth(sequences: int) -> float:
    """From what probability on a guess pays for its row, in steps of so many sequences.

    A guess that holds saves its sequence's share of a later step, which is the cost of a row and a part of what a step
    costs before its first row.
    """
    return sequences / (sequences + STEP_IN_ROWS)


class Drafter:
    """Makes the drafts for one sequence, shorter ones and fewer where they fail.

    Args:
        most: guesses at a time.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._behind: dict[tuple[int, ...], int] = {}  # the place behind the last occurrence of some tokens
        self._seen = 0  # places that are in it
        self._trust = tuple(map(_Trust, FIRST_RATES))
        self._used = self._trust[0]

    def draft(self, tokens: Sequence[int], room: int, worth: float) -> list[int]:
        """At most ``room`` tokens that may follow, as long as they hold with the probability ``worth``."""
        self._look_at(tokens)
        for length in range(min(LONGEST_MATCH, len(tokens)), 0, -1):
            place = self._behind.get(tuple(tokens[-length:]))
            if place is not None:
                break
        else:
            return []
        self._used = self._trust[length - 1]
        count = min(self._used.length(worth), self.most, room)
        guesses = list(tokens[place : place + count])
        while len(guesses) < count:  # what followed reaches the end, and goes round
            guesses.append(guesses[place - len(tokens)])
        return guesses

    def learn(self, held: int, failed: bool) -> None:
        """How many guesses of the last draft held, and whether the next one failed."""
        self._used.learn(held, failed)

    def _look_at(self, tokens: Sequence[int]) -> None:
        for place in range(max(1, self._seen), len(tokens)):
            for length in range(1, min(LONGEST_MATCH, place) + 1):
                self._behind[tuple(tokens[place - length : place])] = place
            self._seen = place + 1
