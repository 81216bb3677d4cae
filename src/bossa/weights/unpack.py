"""The numbers that packed bytes stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.formats.geometry import PANEL, table_scale_bytes
from bossa.formats.panels import GroupedPanels, Int8Panels, LadderPanels, places
from bossa.formats.precision import GROUP_BITS, QUANTIZED
from bossa.formats.quantize import TableRows
from bossa.ir.slot import Slot

U8 = NDArray[np.uint8]


def table_parts(slot: Slot, data: U8) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Views of an 8-bit table: scales [V] and q [V, D]."""
    height = slot.shape[0]
    start = table_scale_bytes(height)
    return data[: 4 * height].view(np.float32), data[start:].view(np.int8).reshape(height, -1)


def quantized_panels(slot: Slot, data: U8) -> Int8Panels | GroupedPanels | LadderPanels:
    """The parts of a slot that is stored as panels of fewer than 16 bits."""
    k = slot.shape[1]
    if slot.dtype == "int8":
        return Int8Panels(data, k)
    return GroupedPanels(data, slot.dtype, k) if slot.dtype in GROUP_BITS else LadderPanels(data, slot.dtype, k)


def dequantize(slot: Slot, data: U8) -> NDArray[np.float32]:
    """The numbers that a packed slot stands for, as float32 in the slot's shape; rows in the packed order."""
    if slot.layout == "panels" and slot.dtype in QUANTIZED:
        n, _ = slot.shape
        return quantized_panels(slot, data).get(places(0, n)).matrix()
    if slot.dtype == "int8":
        return TableRows(*table_parts(slot, data)).matrix().reshape(slot.shape)
    numbers: NDArray[Any] = data.view(np.float32 if slot.dtype == "fp32" else np.uint16)
    if slot.dtype == "bf16":
        numbers = (numbers.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if slot.layout == "panels":
        n, k = slot.shape
        return numbers.reshape(-1, k, PANEL).transpose(0, 2, 1).reshape(-1, k)[:n]
    return numbers.reshape(slot.shape)
