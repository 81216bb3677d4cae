"""Reads logits instead of generating: of every position, or summed up as the probability of a completion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bossa.engine.engine import Engine
from bossa.engine.logprobs import log_probability
from bossa.engine.program import Floats
from bossa.engine.request import Observer
from bossa.errors import RequestError


def logits(engine: Engine, token_ids: Sequence[int]) -> Floats:
    """The logits [T, V] of every position.

    Raises:
        RequestError: there are no tokens, too many, or some that are not in the vocabulary.
    """
    result = np.empty((0, engine.program.vocab_size), np.float32)

    def receive(position: int, rows: Floats) -> None:
        nonlocal result
        if not len(result):  # not before: there may be more tokens than are allowed
            result = np.empty((len(token_ids), engine.program.vocab_size), np.float32)
        result[position : position + len(rows)] = rows

    engine.observe(token_ids, Observer(0, receive))
    return result


def score(engine: Engine, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> float:
    """The sum of the log probabilities of the completion's tokens, each given all before it.

    Raises:
        RequestError: the prompt is empty, both together are longer than a sequence may be, or a token is not in the
            vocabulary.
    """
    if not len(prompt_ids):
        raise RequestError("the prompt is empty: a score needs at least one token to start from")
    if not len(completion_ids):
        return 0.0
    tokens = [*prompt_ids, *completion_ids]
    if len(tokens) > engine.max_seq_length:
        raise RequestError(
            f"prompt and completion have {len(tokens)} tokens, and at most {engine.max_seq_length} fit: shorten them, "
            "or compile with a greater max_seq_length"
        )
    last = engine.program.vocab_size - 1
    if not 0 <= min(completion_ids) <= max(completion_ids) <= last:
        raise RequestError(f"the completion has a token id that is not in the vocabulary, ids 0 to {last}")
    first = len(prompt_ids) - 1
    scores = np.empty(len(completion_ids))

    def receive(position: int, rows: Floats) -> None:
        for at, row in enumerate(rows, position):
            scores[at - first] = log_probability(row, tokens[at + 1])

    engine.observe(tokens[:-1], Observer(first, receive))
    return float(scores.sum())
