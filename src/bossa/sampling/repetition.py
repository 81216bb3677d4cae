"""The repetition penalty of Keskar et al., "CTRL" (2019), and its opposite for the tokens of the prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bossa.sampling.asked import Asked
from bossa.sampling.logits import Floats, LogitsProcessor


def repetition_penalty(asked: Asked) -> LogitsProcessor | None:
    """Tokens that were there before become less likely; more likely below 1."""
    penalty = asked.params.repetition_penalty
    return None if penalty == 1 else lambda tokens, row: penalize(row, tokens, penalty)


def encoder_repetition_penalty(asked: Asked) -> LogitsProcessor | None:
    """The tokens of the prompt become more likely; less likely below 1."""
    penalty = asked.params.encoder_repetition_penalty
    return None if penalty == 1 else lambda _, row: penalize(row, asked.prompt, 1 / penalty)


def penalize(row: Floats, seen: Sequence[int], penalty: float) -> Floats:
    """Logits [V], changed in place, with those of seen tokens divided above 0 and multiplied below."""
    ids = np.unique(np.asarray(seen))
    scores = row[ids]
    with np.errstate(over="ignore"):  # then they are infinite, which is looked for
        row[ids] = np.where(scores < 0, scores * np.float32(penalty), scores / np.float32(penalty))
    return row
