"""What an op keeps of a sequence from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StateSpec:
    """What an op keeps of a sequence, and how.

    Attributes:
        kind: ``paged``: something of each position, in the pages of the sequence's block table; ``recurrent``: as much
            whatever the sequence's length, in a slot of its own.
        bytes: of a position (paged) or of a sequence (recurrent), in fp32.
        rewinds: whether it can be cut back to an earlier position as it is.
        draft_bytes: for each guess of speculation, of the inputs that are kept until it is known to be right; for state
            that cannot be cut back.
    """

    kind: Literal["paged", "recurrent"]
    bytes: int
    rewinds: bool
    draft_bytes: int = 0
