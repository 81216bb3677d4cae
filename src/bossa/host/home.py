"""Paths that begin with a user's home, where there may be no such user, and where the process may have no home."""

from __future__ import annotations

from pathlib import Path


class NoHome(LookupError):
    """There is no such user, or this process has no home; the message says which."""


def expanded(path: str) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that user's home.

    Raises:
        NoHome: it cannot be.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = path.split("/", 1)[0].removeprefix("~")
        raise NoHome("there is no such user" if user else "this process has no home directory") from None
