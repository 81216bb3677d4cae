"""The weight slots of a manifest, checked so that packing can follow them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from bossa.formats.format import LAYOUTS
from bossa.formats.registry import FORMATS
from bossa.pef.checks import Fields

_KNOWN = ("name", "layout", "shape", "dtype", "sources", "interleave")
_KNOWN_OF_SOURCES = ("names", "shape", "transpose")


def read_slots(read: Fields) -> tuple[Mapping[str, Any], ...]:
    """The slots, as `bossa.ir.slot.Slot.to_json` writes them.

    Raises:
        PefError: one is not well formed, or two have the same name.
    """
    slots = []
    names: set[str] = set()
    for number, value in enumerate(read.items("slots")):
        item = Fields(value, f"{read.path}: slots[{number}]")
        name = item.text("name")
        if name in names:
            item.refuse("name", "a name that no other slot has")
        names.add(name)
        _check_slot(item)
        slots.append(dict(item.value))
    return tuple(slots)


def _check_slot(slot: Fields) -> None:
    """Checks that a slot is one that packing can follow: its shape is what its sources make."""
    slot.additions(_KNOWN)
    layout = slot.choice("layout", LAYOUTS)
    dtype = slot.choice("dtype", tuple(FORMATS))
    shape = slot.shape("shape")
    interleave = slot.boolean("interleave")
    shapes = []
    for number, value in enumerate(slot.items("sources")):
        source = Fields(value, f"{slot.path}: sources[{number}]")
        source.additions(_KNOWN_OF_SOURCES)
        if not source.texts("names"):
            source.refuse("names", "a list of at least one name")
        own = source.shape("shape")
        if source.boolean("transpose"):
            if len(own) != 2:
                source.refuse("shape", "that of a matrix, since it is transposed")
            own = own[::-1]
        shapes.append(own)
    if not shapes:
        slot.refuse("sources", "a list of at least one tensor")
    if layout != "flat" and (len(shape) != 2 or any(len(own) != 2 for own in shapes)):
        slot.refuse("shape", "that of a matrix made of matrices")
    if layout not in FORMATS[dtype].layouts:
        able = [name for name, stored in FORMATS.items() if layout in stored.layouts]
        slot.refuse("dtype", f"{' or '.join(able)}, since the layout is {layout}")
    if interleave and (len(set(shapes)) != 1 or not shapes[0] or shapes[0][0] % 16):
        slot.refuse("interleave", "false, since its sources cannot be joined by panels of 16 rows")
    if prod(shape) != sum(prod(own) for own in shapes) or (
        layout != "flat" and (any(own[1] != shape[1] for own in shapes) or sum(own[0] for own in shapes) != shape[0])
    ):
        slot.refuse("shape", "that of its sources joined")
