"""Tokens that do not come, anywhere or first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bossa.sampling.asked import Asked, id_array, within
from bossa.sampling.logits import Floats, Ids, LogitsProcessor


def suppress_tokens(asked: Asked) -> LogitsProcessor | None:
    """Certain tokens do not come."""
    ids = id_array(asked.params.suppress_tokens)
    return (lambda _, row: _suppressed(row, ids)) if len(ids) else None


def begin_suppress_tokens(asked: Asked) -> LogitsProcessor | None:
    """Certain tokens do not come first; behind a forced token that is the first, not second."""
    ids = id_array(asked.params.begin_suppress_tokens)
    begin = len(asked.prompt)
    if begin == 1 and asked.params.forced_bos_token_id is not None:
        begin += 1

    def process(tokens: Sequence[int], row: Floats) -> Floats:
        return _suppressed(row, ids) if len(tokens) == begin else row

    return process if len(ids) else None


def _suppressed(row: Floats, ids: Ids) -> Floats:
    row[within(ids, len(row))] = -np.inf
    return row
