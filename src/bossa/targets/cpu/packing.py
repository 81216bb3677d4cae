"""Packing by native code: the ``bossa_pack`` that a compiled program exports (``kernels/pack.h``)."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.formats.precision import DTYPES, DType
from bossa.weights.packer import RESULTS, STORED, Packer, Result


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
