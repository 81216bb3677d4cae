"""Packing by native code: what a compiled program exports for it (``kernels/pack.h``)."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.targets.cpu.loader import ABI_WITHOUT_STATE
from bossa.weights.packer import STORED, Packer, Result

_OF_4: tuple[str, ...] = ("fp32", "bf16", "int8", "int6", "int4", "int6-a16", "int4-a16", "int6-a8", "int4-a8")
_RESULTS_OF_4: tuple[Result, ...] = ("packed", "not finite", "too large", "no memory")
"""The numbers of formats and of results in programs of interface 4."""


def packer_of(library: Any) -> Packer:
    """That of a library by the names of its functions (`bossa.targets.cpu.loader.Library`), which it holds."""
    return PackerOf4(library) if library.bossa_abi() == ABI_WITHOUT_STATE else LibraryPacker(library)


class LibraryPacker(Packer):
    """A packer in a loaded library, which knows the formats of its program."""

    def __init__(self, library: Any) -> None:
        self._library, self._panels = library, _declared(library.bossa_pack)
        table = getattr(library, "bossa_pack_table", None)
        self._table = None if table is None else _declared(table)

    def pack(
        self, rows: NDArray[Any], stored: str, dtype: str, first: int, panel_step: int, panels: NDArray[np.uint8]
    ) -> Result:
        return _call(self._panels, rows, stored, dtype, first, panel_step, panels)

    def pack_table(
        self, rows: NDArray[Any], stored: str, dtype: str, first: int, height: int, table: NDArray[np.uint8]
    ) -> Result:
        if self._table is None:
            return "not known"
        return _call(self._table, rows, stored, dtype, first, height, table)


def _declared(function: Any) -> Any:
    """One of the two functions, with its types."""
    function.restype = ctypes.c_char_p
    function.argtypes = [
        *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),
        *(ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
    ]
    return function


def _call(
    function: Any, rows: NDArray[Any], stored: str, dtype: str, first: int, step: int, out: NDArray[np.uint8]
) -> Result:
    row_stride, k_stride = (stride // rows.itemsize for stride in rows.strides)
    answer: Result = function(
        *(rows.ctypes.data, stored.encode(), row_stride, k_stride, *rows.shape),
        *(dtype.encode(), first, step, out.ctypes.data),
    ).decode()
    return answer


class PackerOf4(Packer):
    """That of a library of interface 4, which knows formats by number."""

    def __init__(self, library: Any) -> None:
        self._library, self._function = library, library.bossa_pack
        function = self._function
        function.restype = ctypes.c_int32
        function.argtypes = [
            *(ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),
            *(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
        ]

    def pack(
        self, rows: NDArray[Any], stored: str, dtype: str, first: int, panel_step: int, panels: NDArray[np.uint8]
    ) -> Result:
        if dtype not in _OF_4:
            return "not known"
        row_stride, k_stride = (stride // rows.itemsize for stride in rows.strides)
        code: int = self._function(
            *(rows.ctypes.data, STORED.index(stored), row_stride, k_stride, *rows.shape),
            *(_OF_4.index(dtype), first, panel_step, panels.ctypes.data),
        )
        return _RESULTS_OF_4[code]

    def pack_table(self, *_: Any) -> Result:
        """It knows panels alone."""
        return "not known"
