"""What an op keeps of a sequence from one step to the next, and what all ops of a program keep together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

ALIGNMENT = 64
"""Recurrent state of a sequence starts at a multiple of so many bytes, and takes a multiple of them."""


@dataclass(frozen=True)
class StateSpec:
    """What one op keeps of each sequence.

    Attributes:
        kind: ``paged``, which grows with the sequence and lies in the pages of its block table, as keys and values do;
            or ``recurrent``, of one size whatever the sequence's length, and changed by every token.
        bytes: of a position where it is paged, of a sequence where it is recurrent.
        rewinds: whether it can be cut back to an earlier position. Paged state can: what lies behind is written anew.
        draft_bytes: of what is kept of a guessed token, so that the state is moved by it once the guess holds; 0 where
            state can be cut back instead.
    """

    kind: Literal["paged", "recurrent"]
    bytes: int
    rewinds: bool
    draft_bytes: int = 0


@dataclass(frozen=True)
class StateTotals:
    """What the ops of a program keep, all together.

    Attributes:
        position_bytes: of paged state, for each position.
        sequence_bytes: of recurrent state, for each sequence.
        draft_bytes: for each guessed token of a sequence.
    """

    position_bytes: int
    sequence_bytes: int
    draft_bytes: int

    def slot_bytes(self, drafts: int) -> int:
        """Of a state slot: the recurrent state of a sequence, and what is kept of so many guessed tokens."""
        needed = self.sequence_bytes + drafts * self.draft_bytes
        return -(-needed // ALIGNMENT) * ALIGNMENT

    def layout(self, drafts: int) -> dict[str, int]:
        """The fields of a manifest that say so; none where there is no recurrent state."""
        if not self.sequence_bytes:
            return {}
        return {"state_bytes": self.slot_bytes(drafts), "state_drafts": drafts}


def totals(specs: Iterable[StateSpec]) -> StateTotals:
    """The sums over all ops that keep state."""
    paged, recurrent, drafts = 0, 0, 0
    for spec in specs:
        if spec.kind == "paged":
            paged += spec.bytes
        else:
            recurrent += spec.bytes
        drafts += spec.draft_bytes
    return StateTotals(paged, recurrent, drafts)
