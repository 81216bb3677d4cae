"""How much of everything is set aside when a program is loaded, so that it stays within a budget of memory."""

from __future__ import annotations

from dataclasses import dataclass

from bossa.errors import RequestError
from bossa.host.resources import free_memory
from bossa.pef import Manifest

ROWS_OF_A_STEP = 512
"""Packed rows of a step at most: long enough for full tiles, short enough that others need not wait."""

FEWEST_ROWS = 16
"""Packed rows of a step at least, however little memory there is."""

MOST_ROWS = 4096
"""Packed rows of a step at most, whatever the batch size: a larger batch has its sequences run in turn."""

OBSERVED_ROWS = 128
"""Rows a step of a request whose logits are read: a bound on the memory of one block of logits."""

MOST_PAGES = 1 << 20
"""KV pages at most: each one that is free is listed, even where its memory is not touched."""


FEWEST_SNAPSHOTS = 32
"""Snapshots of recurrent state that there is room for where memory allows; two a sequence, if that is more."""

SNAPSHOT_SHARE = 4
"""Snapshots take one in so many bytes of what is left at most."""


@dataclass(frozen=True)
class Room:
    """What a program is loaded with.

    Attributes:
        pages: KV pages.
        max_rows: the most packed rows of a step.
        state_slots: places for the recurrent state of a sequence, those for snapshots among them; 0 where there is no
            such state.
    """

    pages: int
    max_rows: int
    state_slots: int = 0


def fit(manifest: Manifest, sequences: int, length: int, budget: int | None = None, weights: int = 0) -> Room:
    """As much room as is of use to so many sequences of this length, within a budget of bytes.

    The budget is for all that loading adds to the packed weights, which are a mapped file: KV pages, and what ``fixed``
    counts. Where it is short, there are fewer pages, but enough for one sequence; then fewer rows in a step; and then
    as few pages as there must be. Recurrent state comes first, for as many sequences as half of the memory that the
    step leaves has room for (all of it where there are no bytes in pages), and then for some snapshots.

    Args:
        budget: half of the memory that is free, if None, or less where the weights leave less.
        weights: bytes of the packed weights.

    Raises:
        RequestError: not even one page fits beside the smallest step.
    """
    budget = _default_budget(weights) if budget is None else budget
    one = _pages_for(manifest, length)
    wanted = min(sequences * one, MOST_PAGES)
    rows = max(ROWS_OF_A_STEP, min(sequences, MOST_ROWS))
    while True:
        left = budget - fixed(manifest, rows, sequences)
        slots = _state_slots(manifest, sequences, min(wanted, one), left)
        left -= slots * manifest.state_bytes
        pages = min(wanted, left // manifest.page_bytes) if manifest.page_bytes else wanted * (left >= 0)
        if pages >= min(wanted, one) or (rows == FEWEST_ROWS and pages >= 1):
            return Room(pages, rows, slots)
        if rows == FEWEST_ROWS:
            step = fixed(manifest, rows, sequences)
            state = f" recurrent state of one sequence {manifest.state_bytes:,}," if manifest.state_bytes else ""
            raise RequestError(
                f"{budget:,} bytes of memory are too few: one page of keys and values takes {manifest.page_bytes:,},"
                f"{state} and a step of {rows} rows {step:,}: allow"
                f" {manifest.page_bytes + manifest.state_bytes + step:,} or more"
            )
        rows = max(FEWEST_ROWS, rows // 2)


def _state_slots(manifest: Manifest, sequences: int, pages: int, left: int) -> int:
    """Places for recurrent state: one at least, and all else within the bytes that are left.

    Args:
        pages: of one sequence.
    """
    size = manifest.state_bytes
    if not size:
        return 0
    share = min(left // 2, left - manifest.page_bytes) if manifest.page_bytes else left
    running = max(1, min(sequences, MOST_ROWS, share // size))
    spare = left - running * size - pages * manifest.page_bytes
    snapshots = min(max(FEWEST_SNAPSHOTS, 2 * running), max(0, spare) // SNAPSHOT_SHARE // size)
    return running + snapshots


def fixed(manifest: Manifest, rows: int, sequences: int) -> int:
    """Bytes that a step of so many rows needs: activations, logits, and the program's own tables."""
    logits = 4 * manifest.vocab_size * logit_rows(rows, sequences)
    tables = max((constant.offset + constant.bytes for constant in manifest.constants), default=0)
    return manifest.arena_bytes_per_row * rows + logits + tables


def logit_rows(max_rows: int, batch_size: int) -> int:
    """Rows of a step that may have logits: one of each sequence, and more for reading logits and for drafts."""
    return min(max_rows, min(max_rows, batch_size) + OBSERVED_ROWS - 1)


def _default_budget(weights: int) -> int:
    """Half of the free memory, or what the weights leave of it.

    The weights are read at each step, and are soon all in memory. Where they take nearly all of it, the system reads
    them again and again, however little is added to them: an eighth is added all the same.
    """
    free = free_memory()
    return max(min(free // 2, free - weights), free // 8)


def _pages_for(manifest: Manifest, positions: int) -> int:
    return -(-positions // manifest.page_size)
