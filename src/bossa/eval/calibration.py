"""Choices without the model's own leaning to one of them.

Source: Zhou et al., "Batch Calibration: Rethinking Calibration for In-Context Learning and Prompt Engineering" (2023,
arXiv:2309.17249). How likely a model finds a choice whatever is asked is estimated as the mean of its probability over
all prompts, and each probability is divided by it; no reference is looked at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def normalized(scores: Doubles) -> Doubles:
    """Log probabilities [n, C] of choices given that it is one of them, in float64."""
    most = scores.max(axis=1, keepdims=True)
    possible = np.where(np.isfinite(most), scores, 0)  # where no choice is possible, none is likelier than another
    shifted = possible - possible.max(axis=1, keepdims=True)
    logs: Doubles = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def log_priors(scores: Doubles) -> Doubles:
    """The logarithm of the mean probability [C] of each choice over the prompts, from log probabilities [n, C]."""
    logs = normalized(scores)
    most = logs.max(axis=0)
    most = np.where(np.isfinite(most), most, 0)
    with np.errstate(divide="ignore"):
        priors: Doubles = most + np.log(np.exp(logs - most).mean(axis=0))
    return priors


def calibrated(scores: Doubles) -> Doubles:
    """Log probabilities [n, C] over the priors of their choices; one that is never possible stays so."""
    priors = log_priors(scores)
    return normalized(normalized(scores) - np.where(np.isfinite(priors), priors, 0))
