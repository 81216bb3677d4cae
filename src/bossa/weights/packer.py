"""Packing by native code: the ``bossa_pack`` that a compiled program exports (``kernels/pack.h``)."""

from __future__ import annotations

import ctypes
from abc import abstractmethod
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bossa.precision import DTYPES, DType

Result = Literal["packed", "not finite", "too large", "no memory"]
RESULTS: tuple[Result, ...] = ("packed", "not finite", "too large", "no memory")
STORED = ("F32", "BF16", "F16")
"""What a packer reads, in the order of ``PackSource``; what it writes is in the order of ``DTYPES``."""


class Packer(Protocol):
    """Packs rows of a matrix into panels, as the NumPy of ``pack.py`` does."""

    @abstractmethod
    def pack(
        self, rows: NDArray[Any], stored: str, dtype: DType, first: int, panel_step: int, panels: NDArray[np.uint8]
    ) -> Result:
        """Packs ``rows`` [R, K], stored as one of ``STORED``, from packed row ``first`` on.

        Where a panel is full, the next is ``panel_step`` panels on. Another thread may pack other rows meanwhile.
        """


class LibraryPacker(Packer):
    """A packer in a loaded library."""

    def __init__(self, function: Any) -> None:
        """Takes ``bossa_pack`` of a ``ctypes.CDLL``."""
        self._function = function
        function.restype = ctypes.c_int32
        function.argtypes = [
            *(ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),
            *(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
        ]

    def pack(
        self, rows: NDArray[Any], stored: str, dtype: DType, first: int, panel_step: int, panels: NDArray[np.uint8]
    ) -> Result:
        row_stride, step_stride = (stride // rows.itemsize for stride in rows.strides)
        code: int = self._function(
            *(rows.ctypes.data, STORED.index(stored), row_stride, step_stride, *rows.shape),
            *(DTYPES.index(dtype), first, panel_step, panels.ctypes.data),
        )
        return RESULTS[code]
