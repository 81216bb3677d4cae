"""What users name to be written: a file to replace when the new one is whole, or a stream to write as it is."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bossa.host.files import PUBLIC, replacing

MOST_LINKS = 40
"""Links that Linux follows from one name."""


def destination(path: str | os.PathLike[str]) -> Path | int:
    """Where what is written to ``path`` goes.

    Links are followed as Linux follows them in a folder that all may write to: those of this user and of root alone.

    Returns:
        The file to replace, which may not be there yet; or the descriptor, which the caller closes, of the pipe or
        device that the name stands for, or of a stream of this process (``/dev/stdout``, ``/dev/fd/N``).

    Raises:
        OSError: it is a folder, a link of somebody else, or cannot be opened.
    """
    if os.path.basename(path) in ("", ".", ".."):
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, "it is a directory", os.fspath(path))
        raise NotADirectoryError(errno.ENOTDIR, "a name that ends so is a directory's", os.fspath(path))
    place, status = _followed(path)
    number = _number(place)
    if number is not None:
        return os.dup(number)
    if status is None or stat.S_ISREG(status.st_mode):
        return Path(place)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory", os.fspath(path))
    return os.open(place, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def descriptor_of(path: str | os.PathLike[str]) -> int | None:
    """The number of the descriptor of this process that a name stands for, as ``/dev/stdout`` stands for 1."""
    try:
        return _number(_followed(path)[0])
    except OSError:
        return None


def _followed(path: str | os.PathLike[str]) -> tuple[str, os.stat_result | None]:
    """The name that is no link, at the end of those that lead there, and what it stands for, if anything."""
    place = os.path.abspath(path) if os.path.basename(path) in ("", ".", "..") else os.fspath(path)
    for _ in range(MOST_LINKS):
        place = _with_real_folder(place)
        if _number(place) is not None:
            return place, None
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            return place, None
        if not stat.S_ISLNK(status.st_mode):
            return place, status
        target = _with_real_folder(os.path.join(os.path.dirname(place), os.readlink(place)))
        if status.st_uid not in (os.geteuid(), 0) and _number(target) is None:  # /dev/stdout may be anybody's
            raise PermissionError(errno.EPERM, f"{place} is a link that another user made", os.fspath(path))
        place = target
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))


def _with_real_folder(place: str) -> str:
    folder, name = os.path.split(place)
    return os.path.join(os.path.realpath(folder), name)


def _number(place: str) -> int | None:
    folder, name = os.path.split(place)
    return int(name) if folder == f"/proc/{os.getpid()}/fd" and name.isdecimal() else None


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], mode: int = PUBLIC) -> Iterator[BinaryIO]:
    """A file to write that replaces the one at ``path`` when the block ends well; pipes and devices as they are.

    Raises:
        OSError: it cannot be made, written, synced or renamed.
    """
    place = destination(path)
    if isinstance(place, int):
        with os.fdopen(place, "wb") as stream:
            yield stream
        return
    with replacing(place, mode) as file:
        yield file


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out before the work, not after it, that its result could not be written.

    Raises:
        OSError: the folder is missing, or cannot be written to; or ``destination`` says no.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        return  # opening a pipe and closing it again would end it for its reader
    place = destination(path)
    if isinstance(place, int):
        os.close(place)
        return
    status = place.parent.stat()
    if not stat.S_ISDIR(status.st_mode) or not os.access(place.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "its folder cannot be written to", os.fspath(path))
