"""What an op costs in a step, to be added up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OpCost:
    """Bytes and operations of one op; a multiply-add is two operations.

    Attributes:
        step_bytes: of weights that are read once a step, whatever its rows.
        row_bytes: of weights that are read for each row.
        operations: of one row.
        arithmetic: what they are made of, ``fp32``, ``int16`` or ``int8``.
        kept: numbers that are kept of each position, and read for each position that a row sees.
        seen_operations: of one row, for each position that it sees; in fp32.
        window: positions that a row sees at most; 0: all up to its own.
        sequence_bytes: of state that is read and written once for each sequence of a step.
    """

    step_bytes: int = 0
    row_bytes: int = 0
    operations: int = 0
    arithmetic: str = "fp32"
    kept: int = 0
    seen_operations: int = 0
    window: int = 0
    sequence_bytes: int = 0

    def sees(self, position: int) -> int:
        """Positions that the row at a position sees."""
        return min(position + 1, self.window or position + 1)
