"""What a chat template may use up: steps, and characters in all that it makes.

A template is a program of somebody else's. It cannot run for ever if everything that it does is paid for here before
it is done, and it cannot hold more than a value may weigh, since the weight of all that it makes is known: a list's is
that of all its parts, each as often as it would be printed.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

STEP = 150
"""Units of a call, a filter, a turn of a loop. A unit is ten to thirty nanoseconds, or one character that is made."""
NODE = 10
"""Units of the smallest part of a template, and of each item in a container that is made."""
UNITS, UNITS_FOR_EACH = 1 << 24, 64
"""The units there are, and how many more for each character of the conversation."""
VALUE, VALUE_FOR_EACH = 1 << 20, 8
"""The most characters and items of one value, or as many times those of the conversation."""
BITS = 1 << 12
"""The most bits of a whole number."""


class Excess(Exception):
    """A template wants more than there is."""


@dataclass(frozen=True)
class Size:
    """How much a value is when all of it is written out.

    Attributes:
        weight: its characters and items.
        items: its items alone.
        depth: how deep they lie in one another.
    """

    weight: int
    items: int = 1
    depth: int = 1


class Budget:
    """Units and sizes of one rendering."""

    def __init__(self, given: Any) -> None:
        self._sizes: dict[int, tuple[Any, Size]] = {}  # containers are kept, so that no other gets their number
        weight = self.size(given).weight
        self.units = UNITS + UNITS_FOR_EACH * weight
        self.most = max(VALUE, VALUE_FOR_EACH * weight)
        self._left = self.units

    def charge(self, units: int) -> None:
        """Pay for what is about to be done.

        Raises:
            Excess: there is not as much left.
        """
        self._left -= units
        if self._left < 0:
            raise Excess(f"it takes more than {self.units:,} steps and characters")

    def room(self, weight: float) -> None:
        """Make sure that a value of this weight may be made.

        Raises:
            Excess: it may not.
        """
        if weight > self.most:
            raise Excess(f"it makes a value of more than {self.most:,} characters")

    def seen(self, value: Any) -> None:
        """Pay for looking at all of a value once."""
        if type(value) in _SINGLE:
            return
        if isinstance(value, str | bytes):
            self.charge(len(value) >> 3)
        elif _parts(value) is not None or isinstance(value, range):
            self.charge(self.size(value).items >> 3)

    def made(self, value: Any) -> Any:
        """Pay for a value that was made, and note its size; an iterator is run to its end.

        Raises:
            Excess: it is too large, or not paid for.
        """
        if isinstance(value, str | bytes):
            self.room(len(value))
            self.charge(len(value))
        elif type(value) in _PLAIN:
            self.charge(NODE * len(value))
            self.room(self.size(value).weight)
        elif isinstance(value, int):
            if value.bit_length() > BITS:
                raise Excess(f"it makes a number of more than {BITS:,} bits")
        elif _is_iterator(value):
            return self.made(list(self._counted(value)))
        elif _parts(value) is not None:
            self.charge(NODE * len(value))
            self.room(self.size(value).weight)
        return value

    def size(self, value: Any) -> Size:
        """The size of a value; what is neither text nor a container counts as one."""
        if isinstance(value, str | bytes):
            return Size(1 + len(value))
        if isinstance(value, range):
            return Size(1 + len(value), 1 + len(value), 2)
        parts = _parts(value)
        if parts is None:
            return Size(1)
        known = self._sizes.get(id(value))
        if known is not None:
            return known[1]
        weight = items = depth = 1
        for part in parts:
            kind = type(part)
            items += 1
            if kind is str:
                weight += 1 + len(part)
            elif kind is int or kind is bool:
                weight += 1
            else:
                size = self.size(part)
                weight, items, depth = weight + size.weight, items + size.items - 1, max(depth, size.depth)
        found = Size(weight, items, depth + 1)
        self._sizes[id(value)] = value, found
        return found

    def _counted(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self.charge(STEP)
            yield value


def _parts(value: Any) -> Iterable[Any] | None:
    """The values in a container, keys among them; None for what is none."""
    if type(value) in _PLAIN and type(value) is not dict:
        found: Iterable[Any] = value
        return found
    if isinstance(value, Mapping):
        return (part for pair in value.items() for part in pair)
    if isinstance(value, ItemsView):
        return (part for pair in value for part in pair)
    return value if isinstance(value, _CONTAINERS) else None


_PLAIN, _SINGLE = frozenset([list, tuple, dict]), frozenset([bool, int, float, type(None)])
"""Types that are looked at so often that they are not asked what else they are."""
_CONTAINERS = (list, tuple, set, frozenset, KeysView, ValuesView)


def _is_iterator(value: Any) -> bool:
    return isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools")


CURRENT: ContextVar[Budget] = ContextVar("bossa-template")
"""The budget of the rendering that this thread is at."""
