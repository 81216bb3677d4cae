"""What a way to store a weight gives to all who ask: the PEF, packing, the plan, the emitter, the cost model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    U8 = NDArray[np.uint8]

Layout = Literal["panels", "rows", "flat"]
Arithmetic = Literal["fp32", "int16", "int8"]

LAYOUTS: tuple[Layout, ...] = ("panels", "rows", "flat")
"""A linear's matrix in panels of 16 outputs, a table row by row, and a tensor as it is."""
LARGEST = 1e37
"""Numbers larger than this are refused where weights are quantized, so that nothing overflows on the way."""


@dataclass(frozen=True)
class Format(ABC):
    """One way to store a weight.

    Its NumPy defines the bytes and is what the native code is compared with; ``targets/cpu/kernels`` packs to the same
    bytes many times sooner. All arithmetic of a quantizer is in float32, an operation at a time and in the order
    written, so that both agree to the bit.

    Attributes:
        name: what slots of programs call it.
        bits: of a weight, without its scales.
        arithmetic: what the products of a linear are made of: floats, or integers from activations of 16 or 8 bits.
        layouts: that it has.
        cpp: the type in C++, which gives ``Packing`` its name.
        header: where that is, in the folder of the kernels.
        largest: the largest magnitude that it takes.
    """

    name: str
    bits: int
    arithmetic: Arithmetic
    layouts: tuple[Layout, ...]
    cpp: str
    header: str
    largest: float = LARGEST

    @property
    def quantized(self) -> bool:
        """Whether it has integers, and so have the products of a linear."""
        return self.arithmetic != "fp32"

    @abstractmethod
    def panel_bytes(self, k: int) -> int:
        """Bytes of one panel: 16 outputs of ``k`` inputs."""

    @abstractmethod
    def activation_bytes(self, k: int) -> int:
        """Room for a row of ``k`` activations as a linear quantizes it, whatever the processor; 0 where it does not."""

    @abstractmethod
    def put(self, rows: F32, panels: U8, first: int, panel_step: int = 1) -> None:
        """Quantizes rows into packed panels, which are zero where nothing was put yet.

        Args:
            rows: [R, K], finite.
            panels: the bytes of whole panels.
            first: the packed row that the first goes to.
            panel_step: how many panels on the next one is where a panel is full.
        """

    @abstractmethod
    def get(self, panels: U8, k: int, count: int) -> F32:
        """The first ``count`` rows [count, K] that packed panels stand for, rounded as the kernels round them."""

    def table_bytes(self, height: int, width: int) -> int:
        """Bytes of a table of that many rows."""
        raise NotImplementedError(f"{self.name} has no tables")

    def put_table(self, rows: F32, table: U8, height: int, first: int) -> None:
        """Quantizes rows [R, width] into the bytes of a table, from row ``first`` on."""
        raise NotImplementedError(f"{self.name} has no tables")

    def get_table(self, table: U8, height: int) -> F32:
        """The rows [height, width] that the bytes of a table stand for."""
        raise NotImplementedError(f"{self.name} has no tables")


def places(first: int, count: int, panel_step: int = 1) -> tuple[Any, Any]:
    """The panel [R] and the lane [R] of rows from packed row ``first`` on; ``panel_step`` as in `Format.put`."""
    import numpy as np

    from bossa.formats.geometry import PANEL

    lanes = first % PANEL + np.arange(count)
    return first // PANEL + lanes // PANEL * panel_step, lanes % PANEL
