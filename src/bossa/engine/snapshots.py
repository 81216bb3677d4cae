"""Where a sequence's recurrent state is worth a snapshot: at ends of blocks, where another sequence may start.

A step can leave the state of a sequence after its last row alone, so that a snapshot has to be aimed at: the rows of a
step end there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bossa.engine.request import Request

WORTH_BLOCKS = 4
"""Blocks from the last snapshot on from which the end of a prompt is worth one. It takes a step more, which costs as
much as several rows, and is not done for a few."""

SEQUENCES_A_BLOCK = 4
"""Blocks between two snapshots of a growing completion, for each so many sequences that run: each of them ends a run of
decoding steps for all."""


def aim_of_prompt(request: Request, end: int, others: Iterable[Sequence[bytes]], page_size: int) -> int:
    """The position behind ``computed`` after which the next snapshot is wanted, or 0.

    Snapshots are wanted at the end of the prompt's last full block; where it parts from others that wait; and where it
    parts from what was computed for others before, of which there are pages and no snapshot.

    Args:
        request: all its full blocks have their hashes.
        end: blocks of it that another request can share.
        others: the hashes of the blocks of those that wait.
    """
    wanted = [request.branch, *(common(request.block_hashes, hashes) for hashes in others)]
    if end * page_size - request.snapshot_at >= WORTH_BLOCKS * page_size:
        wanted.append(end)
    return min((page_size * blocks for blocks in wanted if page_size * blocks > request.computed), default=0)


def aim_of_completion(request: Request, running: int, page_size: int) -> int:
    """The same for one that decodes, beside so many that run: its last snapshot is where the next turn may start."""
    spacing = max(1, running // SEQUENCES_A_BLOCK)
    return page_size * max(request.computed // page_size + 1, request.snapshot_at // page_size + spacing)


def common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """How many blocks two sequences begin with alike. A hash stands for all before it, so that few are compared."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[middle - 1] == other[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
