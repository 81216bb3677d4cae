"""No n-gram twice, of prompt and completion or of the prompt alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from bossa.sampling.asked import Asked
from bossa.sampling.logits import Floats, LogitsProcessor


def no_repeat_ngram_size(asked: Asked) -> LogitsProcessor | None:
    """A token does not come where it would complete an n-gram that was there before."""
    size = asked.params.no_repeat_ngram_size
    return None if size == 0 else lambda tokens, row: _rule_out(row, tokens, tokens, size)


def encoder_no_repeat_ngram_size(asked: Asked) -> LogitsProcessor | None:
    """A token does not come where it would complete an n-gram of the prompt."""
    size = asked.params.encoder_no_repeat_ngram_size
    return None if size == 0 else lambda tokens, row: _rule_out(row, asked.prompt, tokens, size)


def _rule_out(row: Floats, text: Sequence[int], tokens: Sequence[int], size: int) -> Floats:
    """Logits [V], changed in place, without what follows in ``text`` on the last ``size`` - 1 of ``tokens``."""
    if min(len(text), len(tokens) + 1) < size:
        return row
    ngrams = sliding_window_view(np.asarray(text), size)  # [n, size]
    last = np.asarray(tokens[len(tokens) + 1 - size :], np.intp)
    row[ngrams[(ngrams[:, :-1] == last).all(axis=1), -1]] = -np.inf
    return row
