"""Groups of 32 numbers of 4 or 6 bits in the bytes of a panel: what the formats that have such groups share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bossa.formats.geometry import PANEL

if TYPE_CHECKING:
    import numpy as np

    from bossa.formats.format import U8
else:
    from bossa.formats.lazy import np

GROUP = 32
"""Inputs that share a scale and a minimum."""


def group_bytes(k: int, bits: int) -> int:
    """What the groups of a panel of ``k`` inputs take: their scales and minima, in pairs of groups, then numbers."""
    groups = -(-k // GROUP)
    return (groups + groups % 2) * 2 * PANEL + groups * GROUP * PANEL * bits // 8


class Groups:
    """Views of the groups of packed panels.

    of_groups: scale and minimum of each, [P, 2 ceil(G / 2), 2, 16]. nibbles [P, G, 4, 16, 4]; tops, the upper two of 6
    bits, [P, G, 2, 16, 4].
    """

    def __init__(self, data: U8, bits: int, k: int) -> None:
        """data: [P, group_bytes(k, bits)]."""
        self.bits, self.k, self.groups = bits, k, -(-k // GROUP)
        head = (self.groups + self.groups % 2) * 2 * PANEL
        self.of_groups = data[:, :head].reshape(len(data), -1, 2, PANEL)
        quads = data[:, head:].reshape(len(data), self.groups, bits, PANEL, 4)
        self.nibbles, self.tops = quads[:, :, :4], quads[:, :, 4:]

    def put(self, scales: U8, minima: U8, u: U8, places: tuple[Any, Any]) -> None:
        """scales, minima: [R, G]; u: [R, K]; places: as `bossa.formats.format.places` gives them."""
        panel, lane = places
        self.of_groups[panel, : self.groups, 0, lane] = scales
        self.of_groups[panel, : self.groups, 1, lane] = minima
        padded = np.zeros((len(u), self.groups * GROUP), np.uint8)
        padded[:, : self.k] = u
        halves = (padded & 15).reshape(len(u), self.groups, 4, 2, 4)
        self.nibbles[panel, :, :, lane, :] = halves[:, :, :, 0] | halves[:, :, :, 1] << 4
        if self.bits == 6:
            quarters = (padded >> 4).reshape(len(u), self.groups, 2, 4, 4) << _quarters()
            self.tops[panel, :, :, lane, :] = np.bitwise_or.reduce(quarters, axis=3)

    def get(self, places: tuple[Any, Any]) -> tuple[U8, U8, U8]:
        """Scales, minima and numbers, as ``put`` takes them."""
        panel, lane = places
        scales, minima = (self.of_groups[panel, : self.groups, part, lane] for part in (0, 1))
        packed = self.nibbles[panel, :, :, lane, :]
        u = np.stack([packed & 15, packed >> 4], axis=3).reshape(len(panel), self.groups * GROUP)
        if self.bits == 6:
            tops = self.tops[panel, :, :, lane, :][:, :, :, None] >> _quarters() & 3
            u = u | tops.reshape(u.shape) << 4
        return scales, minima, u[:, : self.k]


def _quarters() -> U8:
    """The place of each quad's upper two bits in a byte of four."""
    return np.arange(0, 8, 2, dtype=np.uint8)[:, None]
