"""Recurrent state, as steps take it: which slot each sequence has, and what becomes of guessed tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]


class SequenceStates(NamedTuple):
    """Of the sequences of a step, in order.

    A sequence whose first row is at position 0 starts from zero state, whatever is in its slot. Every other starts from
    what the last step left there.

    Attributes:
        slots: ``[S]`` the slot of each.
        replays: ``[S]`` how many guesses of its last step turned out right; the state is moved on by these first.
        drafts: ``[S]`` how many of its last rows of this step are guesses, by which the state is not moved yet.
    """

    slots: Int32
    replays: Int32
    drafts: Int32
