"""Weights made up for a program, where none are given: its speed does not depend on their values."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bossa.ir.slot import Slot
from bossa.weights.source import WeightSource

_BLOCK = 1_000_003  # a prime: rows of a matrix differ


class RandomWeights(WeightSource):
    """A checkpoint with every tensor that the slots ask for: matrices are random and small, vectors are ones."""

    def __init__(self, slots: Iterable[Slot], seed: int = 0) -> None:
        self._shapes = {source.names[0]: source.shape for slot in slots for source in slot.sources}
        self._block = np.random.default_rng(seed).standard_normal(_BLOCK, np.float32) * np.float32(0.02)

    def names(self) -> list[str]:
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def dtype(self, name: str) -> str:
        return "F32"

    def read(self, name: str) -> NDArray[np.float32]:
        shape = self._shapes[name]
        return np.resize(self._block, shape) if len(shape) > 1 else np.ones(shape, np.float32)

    def identity(self) -> str:
        return "random"

    def describe(self) -> str:
        return "random weights"
