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


class Scoring:
    """A completion whose tokens are scored by one request: its tokens are ``tokens``, its observer is ``observer``.

    Attributes:
        logprobs: of each token of the completion given all before it, in float64, once the request is finished.

    Raises:
        RequestError: the prompt or the completion is empty, both together are longer than a sequence may be, or a token
            is not in the vocabulary.
    """

    def __init__(self, engine: Engine, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> None:
        if not len(prompt_ids):
            raise RequestError("the prompt is empty: a score needs at least one token to start from")
        if not len(completion_ids):
            raise RequestError("the completion is empty: there is nothing to score")
        self._all = [*prompt_ids, *completion_ids]
        if len(self._all) > engine.max_seq_length:
            raise RequestError(
                f"prompt and completion have {len(self._all)} tokens, and at most {engine.max_seq_length} fit: shorten"
                " them, or compile with a greater max_seq_length"
            )
        last = engine.program.vocab_size - 1
        if not 0 <= min(completion_ids) <= max(completion_ids) <= last:
            raise RequestError(f"the completion has a token id that is not in the vocabulary, ids 0 to {last}")
        self._first = len(prompt_ids) - 1
        self.logprobs = np.empty(len(completion_ids))

    @property
    def tokens(self) -> list[int]:
        """What is run: all but the last token, whose logits nobody needs."""
        return self._all[:-1]

    @property
    def observer(self) -> Observer:
        return Observer(self._first, self._receive)

    @property
    def total(self) -> float:
        """The log probability of the whole completion."""
        return float(self.logprobs.sum())

    def _receive(self, position: int, rows: Floats) -> None:
        for at, row in enumerate(rows, position):
            self.logprobs[at - self._first] = log_probability(row, self._all[at + 1])


def score(engine: Engine, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> float:
    """The sum of the log probabilities of the completion's tokens, each given all before it.

    Raises:
        RequestError: the prompt is empty, both together are longer than a sequence may be, or a token is not in the
            vocabulary.
    """
    if len(prompt_ids) and not len(completion_ids):
        return 0.0
    scoring = Scoring(engine, prompt_ids, completion_ids)
    engine.observe(scoring.tokens, scoring.observer)
    return scoring.total
