"""Adapters as the native program reads them: `struct bossa_adapters` of `kernels/abi.h`."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.adapters.pair import Floats, Pair, dense
from bossa.formats.geometry import PANEL
from bossa.ir.slot import Slot
from bossa.targets.cpu.loader import Adapters, LowRank

RANKS = 16
"""Of a block of ranks."""
BLOCK_K = 320
"""The most of k in one chain: `kMaxKC` of `kernels/linear.h`."""


@dataclass(frozen=True)
class PackedPair:
    """What an adapter has beside one slot, see `struct bossa_low_rank`.

    Attributes:
        starts: ``[blocks + 1]``.
        down: ``[blocks, K, 16]``, at an address that is a multiple of 64.
        first, last, offsets: ``[panels]``.
        up: one after the other, ``[ranks, 16]`` of each panel.
    """

    starts: NDArray[np.int32]
    down: Floats
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    offsets: NDArray[np.int64]
    up: Floats

    @property
    def floats(self) -> int:
        """Of a row's products."""
        blocks, k = self.down.shape[:2]
        return int(blocks * -(-k // BLOCK_K) * RANKS)

    def struct(self) -> LowRank:
        arrays = (self.starts, self.down, self.first, self.last, self.offsets, self.up)
        return LowRank(len(self.down), *(array.ctypes.data for array in arrays))


def pack(slot: Slot, parts: Sequence[Pair | None]) -> PackedPair:
    """The pairs of a slot's sources, in the order in which its matrix is packed."""
    heights = [source.shape[1] if source.transpose else source.shape[0] for source in slot.sources]
    if any(height % PANEL for height in heights[:-1]):  # a panel has outputs of several sources
        whole = Pair(*dense(slot, parts))
        return _pack([whole], [slot.shape[0]], slot.shape, interleave=False)
    return _pack(parts, heights, slot.shape, interleave=slot.interleave)


def _pack(
    parts: Sequence[Pair | None], heights: Sequence[int], shape: tuple[int, ...], *, interleave: bool
) -> PackedPair:
    """The same where each panel has outputs of one part alone."""
    n, k = shape
    panels = -(-n // PANEL)
    starts = [0]
    downs: list[Floats] = []
    ups: list[Floats] = []
    first, last = np.zeros(panels, np.int32), np.zeros(panels, np.int32)
    offsets = np.zeros(panels, np.int64)
    panel = size = 0
    for number, (pair, height) in enumerate(zip(parts, heights, strict=True)):
        count = -(-height // PANEL)
        own = np.arange(count) * len(parts) + number if interleave else np.arange(panel, panel + count)
        panel += count
        begin = len(downs)
        if pair is not None:
            for at in range(0, pair.rank, RANKS):
                piece = pair.down[at : at + RANKS]
                block = np.zeros((k, RANKS), np.float32)
                block[:, : len(piece)] = piece.T
                downs.append(block)
                starts.append(starts[-1] + len(piece))
            up = np.zeros((count * PANEL, pair.rank), np.float32)
            up[:height] = pair.up
            ups.append(up.reshape(count, PANEL, pair.rank).swapaxes(1, 2).reshape(-1))
            offsets[own] = size + np.arange(count) * pair.rank * PANEL
            size += ups[-1].size
        first[own], last[own] = begin, len(downs)
    return PackedPair(np.array(starts, np.int32), _aligned(downs), first, last, offsets, np.concatenate(ups))


class LoadedAdapters:
    """Adapters in the memory of a native program, and which of them the sequences of its steps have.

    Attributes:
        struct: what ``bossa_adapt`` takes; all that it points to lives as long as this does.
        nbytes: of memory.
    """

    def __init__(
        self, slots: Sequence[Slot], adapters: Sequence[Mapping[str, Sequence[Pair | None]]], max_rows: int
    ) -> None:
        """Packs what each adapter has beside slots, by their names."""
        packed = [[pack(s, pairs[s.name]) if s.name in pairs else None for s in slots] for pairs in adapters]
        there = [pair for pairs in packed for pair in pairs if pair is not None]
        stride = max((pair.floats for pair in there), default=RANKS)
        structs = [LowRank() if pair is None else pair.struct() for pairs in packed for pair in pairs]
        table = (LowRank * max(len(structs), 1))(*structs)
        self._of_sequence = np.full(max_rows, -1, np.int32)
        products = np.zeros((max_rows, stride), np.float32)
        self._held: tuple[Any, ...] = (there, table, products)
        self.struct = Adapters(
            len(adapters), ctypes.addressof(table), self._of_sequence.ctypes.data, products.ctypes.data, stride
        )

    def choose(self, of_sequence: NDArray[np.int32]) -> None:
        """Which adapter each sequence of the next steps has, by its number, or -1."""
        assert len(of_sequence) == 0 or of_sequence.max() < self.struct.count
        self._of_sequence[: len(of_sequence)] = of_sequence


def _aligned(blocks: Sequence[Floats]) -> Floats:
    """Blocks one after the other from an address that is a multiple of 64."""
    shape = (len(blocks), *blocks[0].shape)
    count = int(np.prod(shape))
    room = np.empty(count + 16, np.float32)
    start = -room.ctypes.data % 64 // 4
    out = room[start : start + count].reshape(shape)
    for place, block in zip(out, blocks, strict=True):
        place[...] = block
    return out
