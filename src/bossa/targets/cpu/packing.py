"""Packing by native code: the ``bossa_pack`` that a compiled program exports (``kernels/pack.h``)."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.weights.packer import Packer, Result


class LibraryPacker(Packer):
    """A packer in a loaded library, which knows the formats of its program."""

    def __init__(self, function: Any) -> None:
        """Takes ``bossa_pack`` of a ``ctypes.CDLL``."""
        self._function = function
        function.restype = ctypes.c_char_p
        function.argtypes = [
            *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),
            *(ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
        ]

    def pack(
        self, rows: NDArray[Any], stored: str, dtype: str, first: int, panel_step: int, panels: NDArray[np.uint8]
    ) -> Result:
        row_stride, k_stride = (stride // rows.itemsize for stride in rows.strides)
        result: Any = self._function(
            *(rows.ctypes.data, stored.encode(), row_stride, k_stride, *rows.shape),
            *(dtype.encode(), first, panel_step, panels.ctypes.data),
        )
        answer: Result = result.decode()
        return answer
