"""An adapter's modules matched with the slots of a program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bossa.adapters.pair import Pair
from bossa.adapters.read import Adapter
from bossa.errors import AdapterError
from bossa.ir.slot import Slot, Source
from bossa.weights.names import listed

Matched = dict[str, tuple[Pair | None, ...]]
"""By slot name: what the adapter has beside each of the slot's sources, for slots where that is anything."""


@dataclass(frozen=True)
class MatchedAdapter:
    """An adapter as a program takes it.

    Attributes:
        pairs: what it has beside the program's slots.
        content_hash: that of the adapter.
    """

    pairs: Matched
    content_hash: bytes

    @property
    def nbytes(self) -> int:
        """Of all factors."""
        there = (pair for parts in self.pairs.values() for pair in parts if pair is not None)
        return sum(pair.down.nbytes + pair.up.nbytes for pair in there)


def match(adapter: Adapter, slots: Sequence[Slot]) -> MatchedAdapter:
    """What an adapter has beside each slot.

    The adapter's names may have a prefix that the program's lack, or lack one that these have, as those of a base model
    do beside a model with a head.

    Raises:
        AdapterError: it was made for other modules, or for matrices of other shapes.
    """
    panels = [slot for slot in slots if slot.layout == "panels"]
    sources = {name: source for slot in panels for source in slot.sources for name in source.names}
    names = renamed(adapter.pairs, sources)
    unknown = [module for module, tensor in names.items() if tensor not in sources]
    if unknown:
        raise AdapterError(
            f"{adapter.where}: adapts {len(unknown)} of {len(names)} modules that are no linears of the program"
            f" ({listed(unknown)}): pass an adapter of the model that was compiled"
        )
    chosen: dict[str, tuple[str, Pair]] = {}
    for module, tensor in names.items():
        source, pair = sources[tensor], adapter.pairs[module]
        n, k = _shape(source)
        if (len(pair.up), pair.down.shape[1]) != (n, k):
            raise AdapterError(
                f"{adapter.where}: adapts {listed([module])} as a matrix of {len(pair.up)} by {pair.down.shape[1]}, and"
                f" the program's has {n} by {k}: pass an adapter of the model that was compiled"
            )
        first = source.names[0]
        if first in chosen:
            raise AdapterError(
                f"{adapter.where}: adapts both {listed([chosen[first][0]])} and {listed([module])}, which are one"
                " matrix in the program: train an adapter of one of them"
            )
        chosen[first] = (module, pair)
    matched: Matched = {}
    for slot in panels:
        parts = tuple(chosen[s.names[0]][1] if s.names[0] in chosen else None for s in slot.sources)
        if any(part is not None for part in parts):
            matched[slot.name] = parts
    return MatchedAdapter(matched, adapter.content_hash)


def _shape(source: Source) -> tuple[int, int]:
    """``(N, K)`` of a source, however it is stored."""
    n, k = source.shape[::-1] if source.transpose else source.shape
    return n, k


def renamed(modules: Iterable[str], tensors: Iterable[str]) -> dict[str, str]:
    """The tensor of each module, under the change of prefix that finds the most of them."""
    modules, held = list(modules), set(tensors)
    best = {module: f"{module}.weight" for module in modules}
    found = sum(tensor in held for tensor in best.values())
    for strip in _prefixes(modules):
        for add in _prefixes(held):
            if found == len(modules):
                return best
            named = {module: f"{add}{module.removeprefix(strip)}.weight" for module in modules}
            count = sum(tensor in held for tensor in named.values())
            if count > found:
                best, found = named, count
    return best


def _prefixes(names: Iterable[str]) -> list[str]:
    """The dotted prefixes of names that reach into no numbered layer, shortest first."""
    found = {""}
    for name in names:
        prefix = ""
        for part in name.split(".")[:-1][:5]:
            if part.isdigit():
                break
            prefix += part + "."
            found.add(prefix)
    return sorted(found, key=lambda prefix: (len(prefix), prefix))[:12]
