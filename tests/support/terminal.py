"""What a process wrote to a terminal."""

from __future__ import annotations

import os
from contextlib import suppress


def read_all(leader: int) -> str:
    """What was written to a terminal whose other end is closed: a read gives only what has come through so far."""
    pieces = []
    with suppress(OSError):  # the end of a terminal is an error on Linux
        while piece := os.read(leader, 1 << 16):
            pieces.append(piece)
    os.close(leader)
    return b"".join(pieces).decode()
