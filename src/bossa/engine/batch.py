"""What runs in one step: rows of each sequence, laid out as the program takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bossa.engine.program import Ints
from bossa.engine.request import Request
from bossa.runtime.states import SequenceStates


class Chunk(NamedTuple):
    """Positions ``start`` to ``start + rows - 1`` of a request; the last ``logits`` of them give logits.

    The last ``len(drafts)`` rows are of tokens that the request does not have yet. The last ``guesses`` of them are of
    such as it may never have, and recurrent state is not moved by these. A branch of choices is drafts alone, and moves
    the state, which is thrown away with it.
    """

    request: Request
    start: int
    rows: int
    logits: int
    drafts: Sequence[int] = ()
    guesses: int = 0


class Batch(NamedTuple):
    """The arguments of one step."""

    tokens: Ints  # [T]
    positions: Ints  # [T]
    starts: Ints  # [S + 1]
    block_tables: Ints  # [S, B]
    logit_rows: Ints  # [n]


def pack(chunks: Sequence[Chunk]) -> Batch:
    """Lay the chunks out as the arguments of a step."""
    tokens: list[int] = []
    positions: list[int] = []
    starts = [0]
    logit_rows: list[int] = []
    tables: list[bytes] = []
    width = 4 * max([len(chunk.request.blocks) for chunk in chunks])
    for request, start, rows, logits, drafts, _ in chunks:
        if rows == 1 and not drafts:
            tokens.append(request.tokens[start])
            positions.append(start)
        else:
            tokens += request.tokens[start : start + rows]
            tokens += drafts
            positions += range(start, start + rows)
        tables.append(request.blocks.tobytes().ljust(width, b"\0"))
        end = len(tokens)
        starts.append(end)
        if logits == 1:
            logit_rows.append(end - 1)
        elif logits:
            logit_rows += range(end - logits, end)
    return Batch(
        np.array(tokens, np.int32),
        np.array(positions, np.int32),
        np.array(starts, np.int32),
        np.frombuffer(b"".join(tables), np.int32).reshape(len(chunks), -1),
        np.array(logit_rows, np.int32),
    )


def pack_states(chunks: Sequence[Chunk]) -> SequenceStates:
    """The recurrent state of the chunks' sequences, for a program that keeps any."""
    return SequenceStates(
        np.array([chunk.request.slot for chunk in chunks], np.int32),
        np.array([chunk.request.replays for chunk in chunks], np.int32),
        np.array([chunk.guesses for chunk in chunks], np.int32),
    )
