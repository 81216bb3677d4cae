"""A low-rank pair: what an adapter has beside one matrix of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bossa.formats.geometry import PANEL
from bossa.ir.slot import Slot

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """``W + up @ down`` instead of ``W`` [N, K].

    Attributes:
        down: ``[r, K]``, PEFT's A.
        up: ``[N, r]``, PEFT's B with the adapter's scale in it.
    """

    down: Floats
    up: Floats

    @property
    def rank(self) -> int:
        return len(self.down)


def source_rows(slot: Slot) -> list[NDArray[np.intp]]:
    """Which rows of a slot's matrix each of its sources is, in the source's own order."""
    n = slot.shape[0]
    parts = len(slot.sources)
    if slot.interleave:
        panels = np.arange(n).reshape(-1, parts, PANEL)
        return [panels[:, part].reshape(-1) for part in range(parts)]
    heights = [source.shape[1] if source.transpose else source.shape[0] for source in slot.sources]
    ends = np.cumsum(heights)
    return [np.arange(end - height, end) for height, end in zip(heights, ends, strict=True)]


def dense(slot: Slot, parts: Sequence[Pair | None]) -> tuple[Floats, Floats]:
    """The pairs of a slot's sources as one pair of its whole matrix: ``[R, K]`` and ``[N, R]``, zeros between them."""
    rank = sum(pair.rank for pair in parts if pair is not None)
    down = np.concatenate([pair.down for pair in parts if pair is not None])
    up = np.zeros((slot.shape[0], rank), np.float32)
    first = 0
    for rows, pair in zip(source_rows(slot), parts, strict=True):
        if pair is not None:
            up[rows, first : first + pair.rank] = pair.up
            first += pair.rank
    return down, up
