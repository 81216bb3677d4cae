"""End tokens that become likelier the longer a completion grows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bossa.sampling.asked import Asked, id_array, within
from bossa.sampling.logits import Floats, LogitsProcessor

LARGEST = float(np.finfo(np.float32).max)


def exponential_decay_length_penalty(asked: Asked) -> LogitsProcessor | None:
    """From a certain length on, the logits of end tokens grow by their size times a power of the tokens since."""
    given = asked.params.exponential_decay_length_penalty
    ends = id_array(asked.end_tokens)
    if given is None or not len(ends):
        return None
    start, factor = len(asked.prompt) + given[0], given[1]

    def process(tokens: Sequence[int], row: Floats) -> Floats:
        if len(tokens) > start:
            ids = within(ends, len(row))
            scores = row[ids]
            with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is kept, or cut
                grown = scores + np.abs(scores) * np.float32(_power(factor, len(tokens) - start) - 1)
            row[ids] = np.where(np.isfinite(scores), np.minimum(grown, np.float32(LARGEST)), scores)
        return row

    return process


def _power(factor: float, exponent: int) -> float:
    """A power, or what float32 can hold of it."""
    try:
        return float(min(factor**exponent, LARGEST))
    except OverflowError:
        return LARGEST
