"""Which tokens may be drawn, and how likely: temperature, then filters, in the order of transformers' ``generate``.

That order is temperature, top-h, top-k, top-p, min-p, typical-p, epsilon and eta cut-off, each on what the one before
has left.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bossa.sampling.cutoff import epsilon_cutoff, eta_cutoff
from bossa.sampling.logits import Floats, Ids, Weights
from bossa.sampling.parameters import SamplingParams
from bossa.sampling.top_h import top_h
from bossa.sampling.top_k import top_k
from bossa.sampling.top_p import top_p
from bossa.sampling.typical_p import typical_p


def distribution(row: Floats, params: SamplingParams) -> tuple[Ids, Weights]:
    """The tokens that may be drawn from logits [V], by id, and their weights, relative to the likeliest of the row.

    Weights are in float64 where fewer tokens than all are looked at, or a filter sums up all of them. Else they are in
    float32, as Hugging Face has them, which leaves out what is less likely than about e**-87 of the likeliest.
    """
    best = row.max()
    weights: Weights
    ids = _candidates(row, params)
    with np.errstate(over="ignore"):  # a temperature near 0 leaves the likeliest alone
        if ids is not None:
            weights = np.exp((row[ids].astype(np.float64) - best) / params.temperature)
        else:
            ids = _all(len(row))
            weights = (row - best) * np.float32(min(max(1 / params.temperature, 1e-30), 1e30))
            np.exp(weights, out=weights)
    if params.top_p < 1:
        ids, weights = _kept(ids, weights, top_p(weights, params.top_p))
    if params.min_p > 0:  # the likeliest weighs 1, so this is relative to it
        ids, weights = _kept(ids, weights, np.flatnonzero(weights >= params.min_p))
    if params.typical_p < 1:
        ids, weights = _kept(ids, weights, typical_p(weights, params.typical_p))
    if 0 < params.epsilon_cutoff < 1:
        ids, weights = _kept(ids, weights, epsilon_cutoff(weights, params.epsilon_cutoff))
    if 0 < params.eta_cutoff < 1:
        ids, weights = _kept(ids, weights, eta_cutoff(weights, params.eta_cutoff))
    return ids, weights


def _candidates(row: Floats, params: SamplingParams) -> Ids | None:
    """The ids of logits [V] that are looked at, in float64: those that top-h and top-k leave; None: all, in float32."""
    ids = None if params.top_h is None else top_h(row, params.temperature, params.top_h)
    if 0 < params.top_k < len(row):
        ids = top_k(row, params.top_k) if ids is None else ids[top_k(row[ids], params.top_k)]
    if ids is None and (params.typical_p < 1 or 0 < params.epsilon_cutoff < 1 or 0 < params.eta_cutoff < 1):
        ids = np.flatnonzero(row > -np.inf)
    return ids


def _kept(ids: Ids, weights: Weights, places: Ids) -> tuple[Ids, Weights]:
    return ids[places], weights[places]


@lru_cache(maxsize=1)
def _all(count: int) -> Ids:
    """All ids of a vocabulary, made once: getting the memory takes longer than all that is done with them."""
    return np.arange(count)
