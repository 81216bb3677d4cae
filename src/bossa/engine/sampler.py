"""The next token of a request: its logits processors, then the likeliest token or a draw.

A draw depends on the logits and on (seed, request, sample, position), so that it repeats whatever runs beside it.
"""

from __future__ import annotations

import numpy as np

from bossa.engine.program import Floats
from bossa.engine.request import Request
from bossa.errors import RuntimeFailure
from bossa.sampling.logits import process


def sample(row: Floats, request: Request) -> int:
    """The next token of a request, from its logits [V].

    Raises:
        RuntimeFailure: there is NaN among them, or nothing that can be chosen.
        RequestError: a logits processor of the caller's failed.
    """
    params = request.params
    best = _likeliest(row, request)
    if request.processors:
        row = process(request.processors, request.tokens, row)
        best = _likeliest(row, request)
    if params.temperature == 0:
        return best
    from bossa.sampling.distribution import distribution  # not at every start: most draw nothing
    from bossa.sampling.draw import draw, uniform

    ids, weights = distribution(row, params)
    return draw(ids, weights, uniform(params.seed, int(request.id), len(request.tokens), int(request.sample)))


def _likeliest(row: Floats, request: Request) -> int:
    """The place of the greatest of some logits [V], the first of equals."""
    best = int(np.argmax(row))  # the first NaN, if there is any
    if not np.isfinite(row[best]):
        if row[best] == -np.inf and request.processors:
            raise RuntimeFailure(
                f"request {request.id} has no token that may come at position {len(request.tokens)}: what it suppresses"
                " and forces leaves none; suppress fewer tokens"
            )
        raise RuntimeFailure(
            f"the logits of request {request.id} at position {len(request.tokens) - 1} are not finite numbers: "
            "look for damaged weights, or use a precision with a wider range"
        )
    return best
