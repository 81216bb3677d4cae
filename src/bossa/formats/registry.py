"""The formats that there are: those that the files of this folder name in their ``FORMATS``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

import bossa.formats
from bossa.formats.format import Format


def _found() -> Iterator[Format]:
    for module in iter_modules(bossa.formats.__path__, "bossa.formats."):
        if module.name != __name__:
            yield from getattr(import_module(module.name), "FORMATS", ())


FORMATS: Mapping[str, Format] = MappingProxyType(
    {found.name: found for found in sorted(_found(), key=lambda found: (-found.bits, found.name))}
)
"""By name, those of most bits first."""
