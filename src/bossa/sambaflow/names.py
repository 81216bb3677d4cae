"""The name ``sambaflow`` and all below it, bound to the modules of `bossa.samba` as the same objects."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from bossa.errors import SambaError

PARTS = {
    "sambaflow.samba": "bossa.samba",
    "sambaflow.logging": "bossa.samba.logging",
    "sambaflow.sambacollections": "bossa.samba.sambacollections",
}
"""Which of our modules each name is; what is below a name is below the module."""


class NoSuchName(SambaError, ModuleNotFoundError):
    """A program imports what is not here; to the program it is the error that a failed import is."""


def bind() -> None:
    """Let ``import sambaflow`` find ours from here on, whatever is installed under that name."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for name in [name for name in sys.modules if name.partition(".")[0] == "sambaflow"]:
        if sys.modules[name] is not sys.modules.get(_ours(name) or ""):
            del sys.modules[name]


def _ours(name: str) -> str | None:
    """The full name of our module for one of theirs; None where there can be none."""
    if name == "sambaflow":
        return "bossa.sambaflow"
    part = ".".join(name.split(".")[:2])
    return PARTS[part] + name.removeprefix(part) if part in PARTS else None


def _is_there(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # what it would be below is no package
        return False


class _Finder(MetaPathFinder):
    """Finds modules under ``sambaflow``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "sambaflow":
            return None
        ours = _ours(fullname)
        if ours is None or not _is_there(ours):
            raise NoSuchName(
                f"import {fullname}: Bossa has nothing of this name; docs/samba.md lists what it has", name=fullname
            )
        return ModuleSpec(fullname, _Loader(ours))


class _Loader(Loader):
    """Loads one of our modules under its other name, and leaves it what it was."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has given it the spec of the other name.
        module.__spec__ = self.spec
