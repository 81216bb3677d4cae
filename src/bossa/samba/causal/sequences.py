"""Sequences in the native program: what is in their pages, and steps over the rows that are new."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bossa.runtime.program import LoadedProgram
from bossa.samba.causal.inputs import Ints
from bossa.samba.causal.openmp import send_threads_away
from bossa.samba.causal.results import KeptLogits

SHORT = 16
"""New rows up to which a sequence shares its step with others; longer ones write their logits in place."""


class Sequences:
    """The sequences of a batch: tokens that were computed, each with pages and logits of its own.

    Args:
        program: with pages for all of them at full length.
    """

    def __init__(self, program: LoadedProgram, sequences: int, length: int) -> None:
        self._program = program
        self._tokens = [np.empty(0, np.int32) for _ in range(sequences)]
        self._logits = KeptLogits(sequences, length, program.vocab_size)
        blocks = -(-length // program.page_size)
        self._blocks = np.arange(sequences * blocks, dtype=np.int32).reshape(sequences, blocks)

    def logits(self, tokens: Ints, lengths: Sequence[int]) -> torch.Tensor:
        """The logits of all rows; only those behind what each sequence has in common with the last call are computed.

        Args:
            tokens: ``[b, L]``, of which each sequence has the first of `lengths`.

        Returns:
            float32 ``[b, L, V]``, zeros behind each sequence's end; the caller's own.
        """
        known = [_common(kept, row[:length]) for kept, row, length in zip(self._tokens, tokens, lengths, strict=True)]
        new = [number for number, length in enumerate(lengths) if known[number] < length]
        if new:
            # Nothing of what follows is in the pages until it has been computed.
            self._tokens = [kept[:count] for kept, count in zip(self._tokens, known, strict=True)]
            self._logits.keep(known)
            send_threads_away()
            short = [number for number in new if lengths[number] - known[number] <= SHORT]
            if len(short) > 1:
                self._together(short, tokens, known, lengths)
            for number in new:
                if len(short) < 2 or number not in short:
                    self._alone(number, tokens[number], known[number], lengths[number])
            for number in new:
                self._tokens[number] = tokens[number, : lengths[number]].copy()
        return self._logits.result(lengths)

    def _alone(self, number: int, tokens: Ints, first: int, last: int) -> None:
        """Computes rows of one sequence, their logits in place."""
        for start in range(first, last, self._program.max_rows):
            stop = min(last, start + self._program.max_rows)
            rows = np.arange(stop - start, dtype=np.int32)
            self._program.step(
                tokens[start:stop],
                rows + np.int32(start),
                np.array([0, stop - start], np.int32),
                self._blocks[number : number + 1],
                rows,
                out=self._logits.rows[number, start:stop],
            )

    def _together(self, numbers: Sequence[int], tokens: Ints, known: Sequence[int], lengths: Sequence[int]) -> None:
        """Computes a few rows of each of several sequences."""
        at_once = max(1, self._program.max_rows // SHORT)
        for some in (numbers[first : first + at_once] for first in range(0, len(numbers), at_once)):
            counts = [lengths[number] - known[number] for number in some]
            starts = np.cumsum([0, *counts], dtype=np.int32)
            logits = self._program.step(
                np.concatenate([tokens[number, known[number] : lengths[number]] for number in some]),
                np.concatenate([np.arange(known[number], lengths[number], dtype=np.int32) for number in some]),
                starts,
                self._blocks[some],
                np.arange(starts[-1], dtype=np.int32),
            )
            for number, start, stop in zip(some, starts[:-1], starts[1:], strict=True):
                self._logits.rows[number, known[number] : lengths[number]] = logits[start:stop]


def _common(one: Ints, other: Ints) -> int:
    """How many tokens both begin with."""
    count = min(len(one), len(other))
    differs = one[:count] != other[:count]
    return int(differs.argmax()) if differs.any() else count
