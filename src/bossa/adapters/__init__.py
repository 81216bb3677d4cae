"""Adapters in PEFT's format: low-rank pairs beside the weights of a program, which stay as they are."""

from bossa.adapters.match import MatchedAdapter, match
from bossa.adapters.pair import Pair, dense
from bossa.adapters.read import Adapter, read

__all__ = ["Adapter", "MatchedAdapter", "Pair", "dense", "match", "read"]
