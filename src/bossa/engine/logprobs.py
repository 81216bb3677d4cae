"""Log probabilities of tokens under a model's raw logits, before penalties, temperature and filters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bossa.engine.program import Floats


@dataclass(frozen=True)
class TokenLogprob:
    """A token that was chosen, and what else was likely in its place.

    Attributes:
        token_id: the token.
        logprob: the logarithm of its probability.
        top: the likeliest tokens with theirs, the likeliest first, and of equals the lowest id.
    """

    token_id: int
    logprob: float
    top: list[tuple[int, float]]


def token_logprob(row: Floats, token: int, count: int) -> TokenLogprob:
    """The chosen token's log probability under logits [V], and those of the ``count`` likeliest that can occur."""
    logprobs = log_softmax(row)
    return TokenLogprob(token, float(logprobs[token]), _likeliest(row, logprobs, count) if count else [])


def log_softmax(row: Floats) -> NDArray[np.float64]:
    """Log probabilities [V] of logits [V], in float64."""
    scores = row.astype(np.float64)
    scores -= scores.max()
    scores -= np.log(np.exp(scores).sum())
    return scores


def _likeliest(row: Floats, logprobs: NDArray[np.float64], count: int) -> list[tuple[int, float]]:
    threshold = np.partition(row, len(row) - count)[len(row) - count] if count < len(row) else -np.inf
    ids = np.flatnonzero((row >= threshold) & (row > -np.inf))
    ids = ids[np.argsort(-row[ids], kind="stable")][:count]
    return [(int(token), float(logprobs[token])) for token in ids]
