"""Truncation sampling of Hewitt et al. (2022): tokens that are likelier than a bound; the likeliest in any case."""

from __future__ import annotations

from math import exp, sqrt

import numpy as np

from bossa.sampling.logits import Ids, Weights
from bossa.sampling.typical_p import entropy


def epsilon_cutoff(weights: Weights, epsilon: float) -> Ids:
    """The places of weights whose share of the sum is no less than ``epsilon``; those of the greatest too."""
    return np.flatnonzero((weights / weights.sum() >= epsilon) | (weights == weights.max()))


def eta_cutoff(weights: Weights, epsilon: float) -> Ids:
    """As ``epsilon_cutoff``, with a bound that falls where the entropy is high."""
    bound = min(epsilon, sqrt(epsilon) * exp(-entropy(weights / weights.sum())))
    return epsilon_cutoff(weights, bound)
