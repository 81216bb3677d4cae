"""Tokens that must come at a certain place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bossa.sampling.asked import Asked, id_array, within
from bossa.sampling.logits import Floats, LogitsProcessor


def forced_bos_token_id(asked: Asked) -> LogitsProcessor | None:
    """A certain token comes after a prompt of one token."""
    token = asked.params.forced_bos_token_id
    return None if token is None or len(asked.prompt) != 1 else _forced((token,), 1)


def forced_eos_token_id(asked: Asked) -> LogitsProcessor | None:
    """A certain token, or one of several, comes at the last place there is."""
    tokens = asked.params.forced_eos_token_id
    return _forced(tokens, asked.limit - 1) if tokens else None


def _forced(forced: tuple[int, ...], length: int) -> LogitsProcessor:
    """One of these tokens comes after so many."""
    ids = id_array(forced)

    def process(tokens: Sequence[int], row: Floats) -> Floats:
        if len(tokens) == length:
            row[:] = -np.inf
            row[within(ids, len(row))] = 0
        return row

    return process
