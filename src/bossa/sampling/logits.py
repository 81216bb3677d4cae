"""A row of logits, and what a logits processor is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
"""Logits [V], -inf for a token that cannot be."""

Ids = NDArray[np.intp]
"""Token ids, ascending as a rule."""

Weights = NDArray[np.floating[Any]]
"""Of some tokens, in proportion to their probabilities."""

LogitsProcessor = Callable[[Sequence[int], Floats], Floats]
"""From the token ids so far, those of the prompt included, and a row [V] that it may change in place, to such a row.

It depends on nothing else, so that what runs beside a request, and whether it was preempted, changes nothing."""


def process(processors: Sequence[LogitsProcessor], tokens: Sequence[int], row: Floats) -> Floats:
    """Logits [V] as the processors leave them, one after the other; the row itself stays as it is.

    Raises:
        RequestError: a caller's processor failed.
    """
    row = row.copy()
    for processor in processors:
        row = processor(tokens, row)
    return row
