"""Packing by a program's library, of this interface and of the one before."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np

from bossa.targets.cpu.packing import LibraryPacker, packer_of


def test_a_library_of_interface_4_is_asked_by_number() -> None:
    calls: list[tuple[int, ...]] = []

    @ctypes.CFUNCTYPE(
        ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, *[ctypes.c_int64] * 4, ctypes.c_int32, *[ctypes.c_int64] * 2,
        ctypes.c_void_p,
    )  # fmt: skip
    def bossa_pack(_, stored, row_stride, k_stride, rows, k, format, first, panel_step, panels):  # type: ignore[no-untyped-def]  # noqa: A002
        calls.append((stored, row_stride, k_stride, rows, k, format, first, panel_step))
        return len(calls) - 1

    packer = packer_of(SimpleNamespace(bossa_abi=lambda: 4, bossa_pack=bossa_pack))
    rows, panels = np.zeros((3, 5), np.float16), np.zeros(64, np.uint8)
    asked = ("fp32", "int8", "int4-a8", "int6")
    results = [packer.pack(rows, "F16", dtype, 16, 2, panels) for dtype in asked]
    assert results == ["packed", "not finite", "too large", "no memory"]
    assert calls == [(2, 5, 1, 3, 5, code, 16, 2) for code in (0, 2, 8, 3)]
    assert packer.pack(rows, "F16", "another", 16, 2, panels) == "not known"
    assert packer.pack_table(rows, "F16", "int8", 0, 3, panels) == "not known"


def test_a_library_of_this_interface_is_asked_by_name() -> None:
    library = SimpleNamespace(bossa_abi=lambda: 5, bossa_pack=ctypes.CFUNCTYPE(ctypes.c_char_p)(lambda: b"packed"))
    packer = packer_of(library)
    assert isinstance(packer, LibraryPacker)
    rows = np.zeros((3, 5), np.float32)  # programs of before export nothing for tables
    assert packer.pack_table(rows, "F32", "int8", 0, 3, np.zeros(79, np.uint8)) == "not known"
