"""The draw: a counter-based random number, and the token at its share of all probability."""

from __future__ import annotations

import numpy as np

from bossa.errors import RuntimeFailure
from bossa.sampling.logits import Ids, Weights

BLOCK = 512
"""Weights that are summed up before it is looked at which of them is drawn."""

_MASK = 2**64 - 1


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
