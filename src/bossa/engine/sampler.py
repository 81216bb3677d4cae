"""From logits to tokens: greedy, or drawn after the filters of Hugging Face's ``generate``, in its order.

That order is repetition penalty, temperature, top-k, top-p, min-p, each on what the one before has left. A draw depends
on the logits and on (seed, request, sample, position), so that it repeats whatever runs beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.engine.program import Floats
from bossa.engine.request import Request, SamplingParams
from bossa.errors import RuntimeFailure

Ids = NDArray[np.intp]
Weights = NDArray[np.floating[Any]]

GROUP = 64
"""Logits of which the best alone is looked at first."""

BLOCK = 512
"""Weights that are summed up before it is looked at which of them is drawn."""

_MASK = 2**64 - 1


def sample(row: Floats, request: Request) -> int:
    """The next token of a request, from its logits [V].

    Raises:
        RuntimeFailure: there is NaN among them, or nothing that can be chosen.
    """
    params = request.params
    best = _likeliest(row, request)
    if params.greedy:
        return best
    if params.repetition_penalty != 1:
        row = penalize(row, request.tokens, params.repetition_penalty)
        best = _likeliest(row, request)
    if params.temperature == 0:
        return best
    ids, weights = distribution(row, params)
    return draw(ids, weights, uniform(params.seed, int(request.id), len(request.tokens), int(request.sample)))


def _likeliest(row: Floats, request: Request) -> int:
    """The place of the greatest of some logits [V], the first of equals."""
    best = int(np.argmax(row))  # the first NaN, if there is any
    if not np.isfinite(row[best]):
        raise RuntimeFailure(
            f"the logits of request {request.id} at position {len(request.tokens) - 1} are not finite numbers: "
            "look for damaged weights, or use a precision with a wider range"
        )
    return best


def distribution(row: Floats, params: SamplingParams) -> tuple[Ids, Weights]:
    """The tokens that may be drawn from logits [V], by id, and their weights, the likeliest one's being 1.

    After top-k the weights are in float64. Over a whole vocabulary they are in float32, as Hugging Face has them, which
    leaves out what is less likely than about e**-87 of the likeliest.
    """
    best = row.max()
    weights: Weights
    with np.errstate(over="ignore"):  # a temperature near 0 leaves the likeliest alone
        if 0 < params.top_k < len(row):
            ids = top_k(row, params.top_k)
            weights = np.exp((row[ids].astype(np.float64) - best) / params.temperature)
        else:
            ids = _all(len(row))
            weights = (row - best) * np.float32(min(max(1 / params.temperature, 1e-30), 1e30))
            np.exp(weights, out=weights)
    if params.top_p < 1:
        kept = top_p(weights, params.top_p)
        ids, weights = ids[kept], weights[kept]
    if params.min_p > 0:
        kept = np.flatnonzero(weights >= params.min_p)  # the likeliest weighs 1, so this is relative to it
        ids, weights = ids[kept], weights[kept]
    return ids, weights


@lru_cache(maxsize=1)
def _all(count: int) -> Ids:
    """All ids of a vocabulary, made once: getting the memory takes longer than all that is done with them."""
    return np.arange(count)


def penalize(row: Floats, seen: Sequence[int], penalty: float) -> Floats:
    """Logits [V] with those of seen tokens made less likely: divided above 0, multiplied below."""
    ids = np.unique(np.asarray(seen))
    scores = row[ids]
    penalized = row.copy()
    with np.errstate(over="ignore"):  # then they are infinite, which is looked for
        penalized[ids] = np.where(scores < 0, scores * np.float32(penalty), scores / np.float32(penalty))
    return penalized


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


def draw(ids: Ids, weights: Weights, u: float) -> int:
    """The id at the share u, in [0, 1), of the summed weights.

    Raises:
        RuntimeFailure: they hold NaN or infinity, or are all zero.
    """
    starts = np.arange(0, len(weights), BLOCK)
    sums = np.cumsum(np.add.reduceat(weights, starts, dtype=np.float64))
    if not 0 < sums[-1] < np.inf:
        raise RuntimeFailure(
            f"the weights of the tokens to draw from sum up to {sums[-1]}: look for damaged weights, or draw less far"
            " from the logits"
        )
    wanted = u * sums[-1]
    block = min(int(np.searchsorted(sums, wanted, side="right")), len(sums) - 1)
    within = np.cumsum(weights[block * BLOCK : (block + 1) * BLOCK], dtype=np.float64)
    before = sums[block - 1] if block else 0.0
    place = block * BLOCK + int(np.searchsorted(within, wanted - before, side="right"))
    while place >= len(weights) or not weights[place]:  # the sums were rounded differently
        place -= 1
    return int(ids[place])


def uniform(seed: int, request_id: int, position: int, sample: int = 0) -> float:
    """A number in [0, 1), of 53 random bits, that follows from its arguments alone."""
    return (philox((0, 0, sample, position), (seed, request_id))[0] >> 11) * 2.0**-53


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x64-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011), all in 64-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        left = c0 * 0xD2E7470EE14C6C93
        right = c2 * 0xCA5A826395121157
        c0, c1, c2, c3 = right >> 64 ^ c1 ^ k0, right & _MASK, left >> 64 ^ c3 ^ k1, left & _MASK
        k0 = k0 + 0x9E3779B97F4A7C15 & _MASK
        k1 = k1 + 0xBB67AE8584CAA73B & _MASK
    return c0, c1, c2, c3
