"""Names that SambaFlow may have and Bossa has not: an error that is one line, and what Python expects besides."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType, TracebackType

from bossa.errors import SambaError, shown

WHERE = "docs/samba.md lists what it has"
_OURS = str(Path(__file__).parent.parent)


class NoSuchAttribute(SambaError, AttributeError):
    """A program asks for a name that is not here; to the program it is the error that a missing attribute is."""

    def __init__(self, module: str, name: str) -> None:
        SambaError.__init__(self, _line(module, name))


def named_in(error: BaseException) -> str | None:
    """The line for an error of a program's that comes of a name that is not here; None for any other.

    ``from … import name``, and attributes of our modules and objects, fail in Python's own way, without a line of ours.
    """
    if _innermost(error.__traceback__).startswith(_OURS):
        return None  # then the name is one that we should have
    if isinstance(error, ImportError) and not isinstance(error, ModuleNotFoundError):
        found = re.match(r"cannot import name '([^']*)'", str(error))
        return _line(error.name, found[1]) if found and _is_ours(error.name) else None
    if isinstance(error, AttributeError) and error.obj is not None:
        owner = error.obj
        if isinstance(owner, ModuleType):
            return _line(owner.__name__, error.name) if _is_ours(owner.__name__) else None
        kind = owner if isinstance(owner, type) else type(owner)
        return _line(f"{kind.__module__}.{kind.__qualname__}", error.name) if _is_ours(kind.__module__) else None
    return None


def _is_ours(module: str | None) -> bool:
    return module is not None and f"{module}.".startswith(("bossa.samba.", "bossa.sambaflow.", "sambaflow."))


def _line(owner: str | None, name: str | None) -> str:
    place = re.sub(r"^bossa\.(?=samba)", "", owner or "")
    return f"{shown(place)}.{shown(name)}: Bossa has nothing of this name; {WHERE}"


def _innermost(trace: TracebackType | None) -> str:
    """The file that an error was raised in."""
    file = ""
    while trace is not None:
        file, trace = trace.tb_frame.f_code.co_filename, trace.tb_next
    return file
