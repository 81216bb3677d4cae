"""What a fuzzed reader is, and what is asked of whatever it answers."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

LONGEST = 2000
"""Letters that a message may have."""


class Wrong(AssertionError):
    """An answer that is neither right nor a refusal."""


class Reader(Protocol):
    """One reader of untrusted input. A case is an input that `mutate` makes, and what `read` does with it."""

    def seeds(self) -> list[bytes]:
        """Small good inputs, made by the project itself; made once."""
        ...

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        """An input made of seeds and of past inputs; the same for the same state of `chance`."""
        ...

    def passes(self, data: bytes) -> bool:
        """Whether the input gets past the first check, so that what is behind it is tried too."""
        ...

    def read(self, data: bytes, folder: Path) -> None:
        """Reads the input as the project does, in an empty folder of its own, and checks the answer.

        Raises:
            BossaError: it is refused.
            Wrong: the answer is not right.
        """
        ...


def demand(holds: bool, what: str) -> None:
    """Asserts something of an answer."""
    if not holds:
        raise Wrong(what)


def wrong_message(text: str) -> str | None:
    """What is wrong with a message, or None: it is one line of bounded length, and hides and moves nothing."""
    if not text.strip():
        return "the message is empty"
    if len(text) > LONGEST:
        return f"the message has {len(text):,} letters"
    odd = next((letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")), None)
    return None if odd is None else f"the message has the letter {odd!a} in it"
