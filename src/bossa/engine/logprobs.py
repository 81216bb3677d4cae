"""Log probabilities of tokens under a model's raw logits, before logits processors, temperature and filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bossa.engine.program import Floats
from bossa.errors import RuntimeFailure
from bossa.sampling.top_k import top_k


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
    best, rest = _log_total(row)
    ids = top_k(row, count) if count else np.empty(0, np.intp)
    ids = ids[np.argsort(-row[ids], kind="stable")][:count]
    return TokenLogprob(token, float(row[token]) - best - rest, [(int(i), float(row[i]) - best - rest) for i in ids])


def log_probability(row: Floats, token: int) -> float:
    """The logarithm of the probability that logits [V] give a token, in float64.

    Raises:
        RuntimeFailure: the logits hold NaN, or their greatest is infinite.
    """
    best, rest = _log_total(row)
    return float(row[token]) - best - rest


def log_probabilities(row: Floats, tokens: Sequence[int]) -> list[float]:
    """Those of several tokens, each to the bit as ``log_probability`` gives it.

    Raises:
        RuntimeFailure: as there.
    """
    best, rest = _log_total(row)
    return [float(row[token]) - best - rest for token in tokens]


def _log_total(row: Floats) -> tuple[float, float]:
    """The logarithm of the sum of the exponentials of logits [V], as the greatest logit and what is to be added."""
    scores = row.astype(np.float64)
    best = scores.max()  # NaN, if there is any
    if not np.isfinite(best):
        raise RuntimeFailure(
            "some logits are not finite numbers: look for damaged weights, or use a precision with a wider range"
        )
    scores -= best
    np.exp(scores, out=scores)
    return float(best), float(np.log(scores.sum()))
