"""A checkpoint in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.formats.registry import FORMATS
from bossa.weights import Slot, WeightSource


class Arrays(WeightSource):
    """Named arrays; uint16 arrays stand for bfloat16. It counts the tensors that are read."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], identity: str = "1") -> None:
        self.arrays = dict(arrays)
        self.reads = 0
        self._identity = identity

    def names(self) -> list[str]:
        return list(self.arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.arrays[name].shape

    def dtype(self, name: str) -> str:
        kinds = {"float32": "F32", "float16": "F16", "float64": "F64", "uint16": "BF16", "int64": "I64"}
        return kinds[self.arrays[name].dtype.name]

    def read(self, name: str) -> NDArray[Any]:
        self.reads += 1
        return self.arrays[name]

    def identity(self) -> str:
        return hashlib.sha256(self._identity.encode()).hexdigest()

    def describe(self) -> str:
        return "memory"


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bfloat16 of each number, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    rounded[np.isnan(values)] = 0x7FC0
    return rounded


def dequantize(slot: Slot, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The numbers that a packed slot stands for, in its shape; rows in the packed order."""
    stored = FORMATS[slot.dtype]
    if slot.layout == "panels":
        n, k = slot.shape
        return stored.get(data, k, n)
    return stored.get_table(data, slot.shape[0] if slot.shape else 1).reshape(slot.shape)
