"""The likeliest tokens that hold a share of the entropy of the 100 likeliest (Potraghloo et al., "Top-H", 2025)."""

from __future__ import annotations

import numpy as np

from bossa.sampling.logits import Floats, Ids
from bossa.sampling.top_k import top_k

MOST = 100
"""Tokens that are looked at."""


def top_h(row: Floats, temperature: float, h: float) -> Ids:
    """The ids of the likeliest of logits [V] whose terms of the entropy sum up to a share ``h`` of it; never none.

    The entropy is that of the 100 likeliest at this temperature.
    """
    ids = top_k(row, MOST)
    ids = ids[np.argsort(-row[ids], kind="stable")][:MOST]
    with np.errstate(over="ignore", divide="ignore"):
        weights = np.exp((row[ids].astype(np.float64) - row[ids[0]]) / temperature)
        shares = weights / weights.sum()
        terms = -shares * np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    kept = np.cumsum(terms) <= h * terms.sum()
    kept[0] = True
    return np.sort(ids[kept])
