"""What the logits processors of a request are made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bossa.sampling.logits import Ids
from bossa.sampling.parameters import SamplingParams


@dataclass(frozen=True)
class Asked:
    """A request as its logits processors know it.

    Attributes:
        params: what is asked for.
        prompt: its token ids.
        limit: tokens that prompt and completion may have, at most.
    """

    params: SamplingParams
    prompt: tuple[int, ...]
    limit: int

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end the completion."""
        return () if self.params.ignore_eos else self.params.eos_token_ids


def id_array(tokens: tuple[int, ...]) -> Ids:
    """Token ids [n] as an array; those that are below 0, as configs have them for none, left out."""
    return np.array([token for token in tokens if token >= 0], np.intp)


def within(ids: Ids, count: int) -> Ids:
    """Those of some ids that a vocabulary of this size has."""
    return ids[ids < count]
