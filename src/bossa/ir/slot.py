"""What a program asks of a checkpoint: slots, the packed weights, and the tensors that each is made of."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from bossa.formats.format import Layout
from bossa.formats.geometry import PANEL
from bossa.formats.registry import FORMATS


@dataclass(frozen=True)
class Source:
    """One checkpoint tensor that goes into a slot.

    Attributes:
        names: the tensor's name first, then the names it may go by in a checkpoint when weights are tied.
        shape: its shape in the checkpoint.
        transpose: whether the checkpoint holds the matrix as ``[K, N]`` (as GPT-2's Conv1D does).
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    transpose: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"names": list(self.names), "shape": list(self.shape), "transpose": self.transpose}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Source:
        return cls(tuple(data["names"]), tuple(data["shape"]), bool(data["transpose"]))


@dataclass(frozen=True)
class Slot:
    """One packed weight of a program.

    Attributes:
        name: unique in the program; what ``bossa inspect`` shows.
        layout: ``panels`` for the matrix ``[N, K]`` of a linear, packed in panels of 16 outputs and padded with
            zeros; ``rows`` for a row-major table ``[V, D]``; ``flat`` for the tensor as it is, in fp32.
        shape: ``(N, K)``, ``(V, D)``, or the tensor's own shape.
        dtype: the name of the format that it is stored in, which has the layout; ``flat`` is always fp32.
        sources: the tensors, joined along N in this order (``flat``: joined along the first axis).
        interleave: join by panels of 16 rows in turn (first panel of each source, then the second of each) instead
            of one source after the other; all sources then have the same shape, with N a multiple of 16.
    """

    name: str
    layout: Layout
    shape: tuple[int, ...]
    dtype: str
    sources: tuple[Source, ...]
    interleave: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the packed slot, without alignment."""
        stored = FORMATS[self.dtype]
        if self.layout == "panels":
            n, k = self.shape
            return -(-n // PANEL) * stored.panel_bytes(k)
        height, *width = self.shape or (1,)
        return stored.table_bytes(height, prod(width))

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layout": self.layout,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "sources": [source.to_json() for source in self.sources],
            "interleave": self.interleave,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Slot:
        return cls(
            name=data["name"],
            layout=data["layout"],
            shape=tuple(data["shape"]),
            dtype=data["dtype"],
            sources=tuple(Source.from_json(source) for source in data["sources"]),
            interleave=bool(data["interleave"]),
        )
