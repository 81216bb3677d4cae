"""The likeliest tokens that together hold a certain probability ("nucleus sampling", Holtzman et al., 2019)."""

from __future__ import annotations

import numpy as np

from bossa.sampling.logits import Ids, Weights


def top_p(weights: Weights, p: float) -> Ids:
    """The places of the fewest largest weights that hold the share p of their sum, ascending; never none."""
    total = float(weights.sum(dtype=np.float64))
    # The smallest that is kept, times the number of all, is no less than what all that are dropped sum up to.
    places = np.flatnonzero(weights >= (1 - p) * total / len(weights) * (1 - 1e-6))
    likely = weights[places]
    ordered = np.sort(likely)[::-1]
    before = np.concatenate(([0.0], np.cumsum(ordered, dtype=np.float64)[:-1]))
    count = max(1, int(np.searchsorted(before, p * total, side="left")))
    smallest = ordered[count - 1]
    surplus = np.count_nonzero(likely >= smallest) - count
    if surplus:  # of equals, those that come first are kept
        dropped = np.flatnonzero(likely == smallest)[-surplus:]
        likely[dropped] = -1.0
    kept: Ids = places[likely >= smallest]
    return kept
