"""Locally typical sampling of Meister et al. (2022): tokens whose information is near to what is expected."""

from __future__ import annotations

import numpy as np

from bossa.sampling.logits import Ids, Weights


def typical_p(weights: Weights, mass: float) -> Ids:
    """The places of the weights nearest to the entropy, by their information, that hold this share; never none."""
    shares = weights / weights.sum()
    with np.errstate(divide="ignore"):
        information = -np.log(shares)
    distance = np.abs(information - entropy(shares))
    order = np.argsort(distance, kind="stable")
    fewer = int(np.count_nonzero(np.cumsum(shares[order]) < mass))
    return np.flatnonzero(distance <= distance[order[min(fewer, len(order) - 1)]])


def entropy(shares: Weights) -> float:
    """The entropy of probabilities, in nats."""
    likely = shares[shares > 0]
    return -float((likely * np.log(likely)).sum())
