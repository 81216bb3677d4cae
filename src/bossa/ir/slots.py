"""A slot as a program's text has it, read without trusting it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bossa.formats.format import LAYOUTS
from bossa.formats.registry import FORMATS
from bossa.ir.slot import Slot

_KEYS = {"name", "layout", "shape", "dtype", "sources", "interleave"}
_SOURCE_KEYS = {"names", "shape", "transpose"}


def read_slot(data: Any) -> Slot | None:
    """The slot that `Slot.to_json` gave, or None where the JSON is anything else."""
    good = (
        isinstance(data, Mapping)
        and data.keys() == _KEYS
        and isinstance(data["name"], str)
        and data["layout"] in LAYOUTS
        and data["dtype"] in FORMATS
        and _is_shape(data["shape"])
        and isinstance(data["interleave"], bool)
        and isinstance(data["sources"], list)
        and len(data["sources"]) > 0
        and all(_is_source(source) for source in data["sources"])
    )
    return Slot.from_json(data) if good else None


def _is_source(data: Any) -> bool:
    return (
        isinstance(data, Mapping)
        and data.keys() == _SOURCE_KEYS
        and is_texts(data["names"])
        and len(data["names"]) > 0
        and _is_shape(data["shape"])
        and isinstance(data["transpose"], bool)
    )


def is_texts(data: Any) -> bool:
    """Whether this is a list of strings."""
    return isinstance(data, list) and all(isinstance(item, str) for item in data)


def _is_shape(data: Any) -> bool:
    return isinstance(data, list) and all(type(extent) is int for extent in data)
