"""``python -m bossa.sambaflow PROGRAM.py ARGS…``: run a program that imports ``sambaflow``, unmodified.

In such a program this package is ``sambaflow`` itself.
"""

from __future__ import annotations

from typing import Any

from bossa.version import __version__

__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    from bossa.sambaflow.names import PARTS

    if f"sambaflow.{name}" in PARTS:
        from importlib import import_module

        return import_module(PARTS[f"sambaflow.{name}"])
    from bossa.sambaflow.missing import NoSuchAttribute

    raise NoSuchAttribute("sambaflow", name)
