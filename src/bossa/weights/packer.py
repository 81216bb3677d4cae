"""What packs rows of weights instead of NumPy: the native code of a target."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Result = Literal["packed", "not finite", "too large", "no memory", "not known"]
STORED = ("F32", "BF16", "F16")
"""What a packer reads."""


class Packer(Protocol):
    """Packs rows into panels or a table, to the bytes that the NumPy of the format gives."""

    @abstractmethod
    def pack(
        self, rows: NDArray[Any], stored: str, dtype: str, first: int, panel_step: int, panels: NDArray[np.uint8]
    ) -> Result:
        """Packs ``rows`` [R, K], stored as one of ``STORED``, in the format of that name, from packed row ``first`` on.

        Where a panel is full, the next is ``panel_step`` panels on. Another thread may pack other rows meanwhile. What
        it answers "not known" to it has not packed.
        """

    @abstractmethod
    def pack_table(
        self, rows: NDArray[Any], stored: str, dtype: str, first: int, height: int, table: NDArray[np.uint8]
    ) -> Result:
        """The same into a table of ``height`` rows, from row ``first`` on."""
