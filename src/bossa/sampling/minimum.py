"""No end before a completion has a certain length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bossa.sampling.asked import Asked, id_array, within
from bossa.sampling.logits import Floats, LogitsProcessor


def minimum_length(asked: Asked) -> LogitsProcessor | None:
    """End tokens do not come too early: ``min_new_tokens`` says when or, where that is None, ``min_length``."""
    new = asked.params.min_new_tokens
    least = asked.params.min_length if new is None else len(asked.prompt) + new
    ends = id_array(asked.end_tokens)
    if least <= len(asked.prompt) or not len(ends):
        return None

    def process(tokens: Sequence[int], row: Floats) -> Floats:
        if len(tokens) < least:
            row[within(ends, len(row))] = -np.inf
        return row

    return process
