"""A checkpoint in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from bossa.weights import WeightSource


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
