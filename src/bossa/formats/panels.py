"""Quantized numbers in the bytes of a slot, and back. docs/pef.md has the formats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bossa.formats.geometry import BLOCK, GROUP, PANEL, panel_bytes
from bossa.formats.precision import GROUP_BITS, LADDER_BITS, DType
from bossa.formats.quantize import GroupedRows, Int8Rows, LadderRows

U8 = NDArray[np.uint8]
Places = tuple[NDArray[np.intp], NDArray[np.intp]]
"""The panel and the lane of each row."""


class Int8Panels:
    """Views of the parts of packed panels: scales [P, 16], block scales [P, B, 16], and q [P, 2 ceil(K / 4), 16, 2]."""

    def __init__(self, data: U8, k: int) -> None:
        panels = data.reshape(-1, panel_bytes("int8", k))
        self.k, blocks = k, -(-k // BLOCK)
        head = 64 + -(-blocks // 4) * 64
        self.scales = panels[:, :64].view(np.float32)
        self.block_scales = panels[:, 64 : 64 + blocks * PANEL].reshape(len(panels), blocks, PANEL)
        self.q = panels[:, head:].view(np.int8).reshape(len(panels), -1, PANEL, 2)

    def put(self, rows: Int8Rows, places: Places) -> None:
        panel, lane = places
        padded = np.zeros((len(rows.q), self.q.shape[1] * 2), np.int8)
        padded[:, : self.k] = rows.q
        self.scales[panel, lane] = rows.scales
        self.block_scales[panel, :, lane] = rows.block_scales
        self.q[panel, :, lane, :] = padded.reshape(len(padded), -1, 2)

    def get(self, places: Places) -> Int8Rows:
        panel, lane = places
        q = self.q[panel, :, lane, :].reshape(len(panel), self.q.shape[1] * 2)
        return Int8Rows(self.scales[panel, lane], self.block_scales[panel, :, lane], q[:, : self.k])


class GroupedPanels:
    """Views of the parts of packed panels of 6-bit or 4-bit weights.

    scales and steps [P, 16]; of_groups, the scale and the minimum of each, [P, 2 ceil(G / 2), 2, 16]; numbers.
    """

    def __init__(self, data: U8, dtype: DType, k: int) -> None:
        panels = data.reshape(-1, panel_bytes(dtype, k))
        self.bits, self.groups = GROUP_BITS[dtype], -(-k // GROUP)
        head = 128 + (self.groups + self.groups % 2) * 2 * PANEL
        self.scales = panels[:, :64].view(np.float32)
        self.steps = panels[:, 64:128].view(np.float32)
        self.of_groups = panels[:, 128:head].reshape(len(panels), -1, 2, PANEL)
        self.numbers = _Numbers(panels[:, head:], self.bits, k)

    def put(self, rows: GroupedRows, places: Places) -> None:
        panel, lane = places
        self.scales[panel, lane] = rows.scales
        self.steps[panel, lane] = rows.steps
        self.of_groups[panel, : self.groups, 0, lane] = rows.group_scales
        self.of_groups[panel, : self.groups, 1, lane] = rows.minima
        self.numbers.put(rows.u, places)

    def get(self, places: Places) -> GroupedRows:
        panel, lane = places
        scales, minima = (self.of_groups[panel, : self.groups, part, lane] for part in (0, 1))
        u = self.numbers.get(places)
        return GroupedRows(self.scales[panel, lane], self.steps[panel, lane], scales, minima, u)


class LadderPanels:
    """Views of the parts of packed panels of 6-bit or 4-bit weights that are rungs between bytes.

    scales [P, 16]; of_groups, the step and the minimum of each, [P, 2 ceil(G / 2), 2, 16]; numbers.
    """

    def __init__(self, data: U8, dtype: DType, k: int) -> None:
        panels = data.reshape(-1, panel_bytes(dtype, k))
        self.bits, self.groups = LADDER_BITS[dtype], -(-k // GROUP)
        head = 64 + (self.groups + self.groups % 2) * 2 * PANEL
        self.scales = panels[:, :64].view(np.float32)
        self.of_groups = panels[:, 64:head].reshape(len(panels), -1, 2, PANEL)
        self.numbers = _Numbers(panels[:, head:], self.bits, k)

    def put(self, rows: LadderRows, places: Places) -> None:
        panel, lane = places
        self.scales[panel, lane] = rows.scales
        self.of_groups[panel, : self.groups, 0, lane] = rows.steps
        self.of_groups[panel, : self.groups, 1, lane] = rows.minima
        self.numbers.put(rows.u, places)

    def get(self, places: Places) -> LadderRows:
        panel, lane = places
        steps, minima = (self.of_groups[panel, : self.groups, part, lane] for part in (0, 1))
        return LadderRows(self.scales[panel, lane], steps, minima, self.numbers.get(places))


class _Numbers:
    """Views of numbers of 4 or 6 bits: nibbles [P, G, 4, 16, 4]; tops, the upper two of 6 bits, [P, G, 2, 16, 4]."""

    def __init__(self, data: U8, bits: int, k: int) -> None:
        self.bits, self.k, self.groups = bits, k, -(-k // GROUP)
        quads = data.reshape(len(data), self.groups, bits, PANEL, 4)
        self.nibbles, self.tops = quads[:, :, :4], quads[:, :, 4:]

    def put(self, numbers: U8, places: Places) -> None:
        panel, lane = places
        u = np.zeros((len(numbers), self.groups * GROUP), np.uint8)
        u[:, : self.k] = numbers
        halves = (u & 15).reshape(len(u), self.groups, 4, 2, 4)
        self.nibbles[panel, :, :, lane, :] = halves[:, :, :, 0] | halves[:, :, :, 1] << 4
        if self.bits == 6:
            quarters = (u >> 4).reshape(len(u), self.groups, 2, 4, 4) << _QUARTERS
            self.tops[panel, :, :, lane, :] = np.bitwise_or.reduce(quarters, axis=3)

    def get(self, places: Places) -> U8:
        panel, lane = places
        packed = self.nibbles[panel, :, :, lane, :]
        u = np.stack([packed & 15, packed >> 4], axis=3).reshape(len(panel), self.groups * GROUP)
        if self.bits == 6:
            tops = self.tops[panel, :, :, lane, :][:, :, :, None] >> _QUARTERS & 3
            u = u | tops.reshape(u.shape) << 4
        return u[:, : self.k]


_QUARTERS = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
"""The place of each quad's upper two bits in a byte of four."""


def places(row: int, count: int, panel_step: int = 1) -> Places:
    """Where ``count`` rows go from packed row ``row`` on, when the next panel is ``panel_step`` panels after one."""
    lanes = row % PANEL + np.arange(count)
    return row // PANEL + lanes // PANEL * panel_step, lanes % PANEL
