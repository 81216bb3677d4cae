"""From logits to tokens: greedy, or drawn after the filters of Hugging Face's ``generate``, in its order.

That order is repetition penalty, temperature, top-k, top-p, min-p, each on what the one before has left. A draw depends
on the logits and on (seed, request, sample, position), so that it repeats whatever runs beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bossa.engine.program import Floats
from bossa.engine.request import Request, SamplingParams
from bossa.errors import RuntimeFailure

Ids = NDArray[np.intp]
Doubles = NDArray[np.float64]

LIKELY = 1024
"""The likeliest tokens that top-p sorts, where they hold its share."""

_MASK = 2**64 - 1


def is_greedy(params: SamplingParams) -> bool:
    """Whether the next token is the likeliest one, with no look at what came before."""
    return params.temperature == 0 and params.repetition_penalty == 1


def sample(row: Floats, request: Request) -> int:
    """The next token of a request, from its logits [V].

    Raises:
        RuntimeFailure: there is NaN among them, or nothing that can be chosen.
    """
    params = request.params
    best = int(np.argmax(row))  # the first NaN, if there is any
    if not np.isfinite(row[best]):
        raise RuntimeFailure(
            f"the logits of request {request.id} at position {len(request.tokens) - 1} are not finite numbers: "
            "look for damaged weights, or use a precision with a wider range"
        )
    if is_greedy(params):
        return best
    if params.repetition_penalty != 1:
        row = penalize(row, request.tokens, params.repetition_penalty)
    if params.temperature == 0:
        return int(np.argmax(row))
    ids, weights = distribution(row, params)
    return draw(ids, weights, uniform(int(params.seed), int(request.id), len(request.tokens), int(request.sample)))


def distribution(row: Floats, params: SamplingParams) -> tuple[Ids, Doubles]:
    """The tokens that may be drawn from logits [V], by id, and their weights, the likeliest one's being 1."""
    scores = row.astype(np.float64)
    with np.errstate(over="ignore"):  # a temperature near 0 leaves the likeliest alone
        scores = (scores - scores.max()) / params.temperature
    ids = top_k(scores, params.top_k) if params.top_k else np.flatnonzero(scores > -np.inf)
    weights = np.exp(scores[ids])
    if params.top_p < 1:
        kept = top_p(weights, params.top_p)
        ids, weights = ids[kept], weights[kept]
    if params.min_p > 0:
        kept = weights >= params.min_p  # the likeliest weighs 1, so this is relative to it
        ids, weights = ids[kept], weights[kept]
    return ids, weights


def penalize(row: Floats, seen: Sequence[int], penalty: float) -> Floats:
    """Logits [V] with those of seen tokens made less likely: divided above 0, multiplied below."""
    ids = np.unique(np.asarray(seen))
    scores = row[ids]
    penalized = row.copy()
    penalized[ids] = np.where(scores < 0, scores * np.float32(penalty), scores / np.float32(penalty))
    return penalized


def top_k(scores: Doubles, k: int) -> Ids:
    """The ids of the k best scores [V], and of those equal to the last of them."""
    if k >= len(scores):
        return np.flatnonzero(scores > -np.inf)
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero((scores >= threshold) & (scores > -np.inf))


def top_p(weights: Doubles, p: float) -> Ids:
    """The places of the fewest largest weights that hold the share p of their sum, ascending; never none."""
    wanted = p * weights.sum()
    likely = top_k(weights, LIKELY)  # as a rule these are enough, and sorting all would cost the most of a draw
    if weights[likely].sum() < wanted:
        likely = np.arange(len(weights))
    order = likely[np.argsort(-weights[likely], kind="stable")]
    before = np.concatenate(([0.0], np.cumsum(weights[order])[:-1]))
    count = max(1, int(np.searchsorted(before, wanted, side="left")))
    return np.sort(order[:count])


def draw(ids: Ids, weights: Doubles, u: float) -> int:
    """The id at the share u, in [0, 1), of the summed weights."""
    cumulative = np.cumsum(weights)
    place = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    return int(ids[min(place, len(ids) - 1)])


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
