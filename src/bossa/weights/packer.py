"""What packs rows of a matrix instead of NumPy: the native code of a target."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bossa.formats.precision import DType

Result = Literal["packed", "not finite", "too large", "no memory"]
RESULTS: tuple[Result, ...] = ("packed", "not finite", "too large", "no memory")
STORED = ("F32", "BF16", "F16")
"""What a packer reads."""


class Packer(Protocol):
    """Packs rows of a matrix into panels, as the NumPy of ``pack.py`` does."""

    @abstractmethod
    def pack(
        self, rows: NDArray[Any], stored: str, dtype: DType, first: int, panel_step: int, panels: NDArray[np.uint8]
    ) -> Result:
        """Packs ``rows`` [R, K], stored as one of ``STORED``, from packed row ``first`` on.

        Where a panel is full, the next is ``panel_step`` panels on. Another thread may pack other rows meanwhile.
        """
