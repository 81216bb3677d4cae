"""The k likeliest tokens."""

from __future__ import annotations

import numpy as np

from bossa.sampling.logits import Floats, Ids

GROUP = 64
"""Logits of which the best alone is looked at first."""


def top_k(row: Floats, k: int) -> Ids:
    """The ids of the k best logits [V], and of those equal to the last of them, as far as they are not -inf."""
    groups = len(row) // GROUP
    if k < groups:
        # Each of the k best groups has a logit that is not less than the kth best of the groups' best.
        bests = row[: groups * GROUP].reshape(GROUP, groups).max(axis=0)
        ids = np.flatnonzero(row >= np.partition(bests, groups - k)[groups - k])
    else:
        ids = np.arange(len(row))
    found = row[ids]
    if k < len(found):
        ids = ids[found >= np.partition(found, len(found) - k)[len(found) - k]]
    return ids[row[ids] > -np.inf]
