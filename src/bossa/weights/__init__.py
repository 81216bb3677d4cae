"""Weights: read a checkpoint, match its tensors with a program's slots, pack them once, and map the result."""

from bossa.ir.slot import Slot, Source
from bossa.weights.bind import BoundWeights, bind, bind_blob, blob_layout
from bossa.weights.cache import CacheEntry, WeightCache
from bossa.weights.open import open_weights
from bossa.weights.source import WeightSource

__all__ = [
    "BoundWeights",
    "CacheEntry",
    "Slot",
    "Source",
    "WeightCache",
    "WeightSource",
    "bind",
    "bind_blob",
    "blob_layout",
    "open_weights",
]
