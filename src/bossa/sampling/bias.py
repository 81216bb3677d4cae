"""A bias for sequences of tokens; one of minus infinity for those that must not come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bossa.sampling.asked import Asked
from bossa.sampling.logits import Floats, LogitsProcessor

Bias = tuple[tuple[int, ...], float]


def sequence_bias(asked: Asked) -> LogitsProcessor | None:
    """Something is added to the logit of a sequence's last token, where the others stand before it."""
    return _biased(asked.params.sequence_bias)


def bad_words_ids(asked: Asked) -> LogitsProcessor | None:
    """A sequence's last token does not come where the others stand before it; end tokens by themselves may."""
    ends = {(token,) for token in asked.end_tokens}
    return _biased((word, -np.inf) for word in dict.fromkeys(asked.params.bad_words_ids) if word not in ends)


def _biased(biases: Iterable[Bias]) -> LogitsProcessor | None:
    # Of one length together, so that a step compares arrays: the tokens before [n, length - 1], the last [n], bias [n].
    by_length = [
        (
            np.array([tokens[:-1] for tokens, _ in group], np.intp),
            np.array([tokens[-1] for tokens, _ in group], np.intp),
            np.array([bias for _, bias in group], np.float32),
        )
        for group in _grouped(biases)
    ]
    if not by_length:
        return None

    def process(tokens: Sequence[int], row: Floats) -> Floats:
        total = np.zeros_like(row)
        for before, last, bias in by_length:
            count = before.shape[1]
            if count <= len(tokens):
                fits = (before == np.asarray(tokens[len(tokens) - count :], np.intp)).all(axis=1)
                np.add.at(total, last[fits], bias[fits])
        row += total
        return row

    return process


def _grouped(biases: Iterable[Bias]) -> list[list[Bias]]:
    """Those of one length together: single tokens first, then as the lengths first come, which is the order of sums."""
    given = list(biases)
    lengths = dict.fromkeys([1, *(len(tokens) for tokens, _ in given)])
    groups = [[pair for pair in given if len(pair[0]) == length] for length in lengths]
    return [group for group in groups if group]
