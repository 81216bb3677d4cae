"""Files that Bossa writes: each beside its place first, under a name that nobody can guess, then renamed.

A file is made new (``O_EXCL``), never through a link (``O_NOFOLLOW``), and synced before it is renamed, its folder
after it. So a name holds what it held or what is whole, whatever ends the process; and no link, pipe or file that
somebody else put in the way is written to.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

PUBLIC = 0o666
"""Rights of what users ask for, before their umask."""
PRIVATE = 0o600
"""Rights of what is kept for this user alone."""
PRIVATE_FOLDER = 0o700

LONGEST_KEPT = 120
"""Bytes of a name, of the 255 that there may be, that are kept in the names made from it."""
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


def create_beside(target: Path, ending: str = ".tmp", mode: int = PUBLIC) -> tuple[Path, int]:
    """Make a new, empty file in the folder of ``target``, open for reading and writing.

    Returns:
        Its path, ``.NAME.<16 hexadecimal digits><ending>``, and its descriptor. A long name is cut.

    Raises:
        OSError: it cannot be made.
    """
    path = _hidden(target, f".{os.urandom(8).hex()}{ending}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return path, os.open(path, flags, mode)


def _hidden(target: Path, ending: str) -> Path:
    """``.NAME<ending>`` beside the target; of a name that leaves no room for it, a part and its checksum."""
    name = os.fsencode(target.name)
    if len(name) > LONGEST_KEPT:
        from hashlib import blake2b

        name = name[:LONGEST_KEPT] + b"." + blake2b(name, digest_size=8).hexdigest().encode()
    return target.with_name("." + os.fsdecode(name) + ending)


def put_in_place(beside: Path, target: Path, descriptor: int | None = None) -> None:
    """Give the file ``beside`` the name ``target``, after its bytes are on the disk where its descriptor is given.

    Raises:
        OSError: it cannot be synced or renamed; ``target`` is then what it was.
    """
    if descriptor is not None:
        os.fsync(descriptor)
    os.replace(beside, target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the file system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replacing(target: Path, mode: int = PUBLIC) -> Iterator[BinaryIO]:
    """A file to write that takes the name ``target`` when the block ends well, and leaves nothing otherwise.

    Raises:
        OSError: it cannot be made, written, synced or renamed.
    """
    beside, descriptor = create_beside(target, mode=mode)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            put_in_place(beside, target, file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def open_regular(path: Path, owned: Callable[[os.stat_result], bool] = lambda _status: True) -> int:
    """Open a file to read that must be a regular one and no link; ``owned`` says whether its owner and rights will do.

    Never waits, as opening a pipe would.

    Raises:
        OSError: it cannot be opened, is a link, a pipe, a device or a folder, or is not ``owned``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "not a regular file", str(path))
        if not owned(status):
            raise PermissionError(None, "it belongs to another user, or others may write to it", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_private(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user, and nobody else may write to it."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def private_folder(folder: Path) -> Path:
    """A folder of this user alone, made where it is missing, as are its parents.

    Raises:
        OSError: it cannot be made, is no folder, or belongs to somebody else.
    """
    for place in (*reversed(folder.parents), folder):
        if not place.exists():
            with contextlib.suppress(FileExistsError):
                place.mkdir(mode=PRIVATE_FOLDER)
                place.chmod(PRIVATE_FOLDER)  # whatever the umask took away
    status = folder.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(None, "it is not a folder", str(folder))
    if status.st_uid != os.geteuid():
        raise PermissionError(None, "it belongs to another user", str(folder))
    if stat.S_IMODE(status.st_mode) != PRIVATE_FOLDER:
        folder.chmod(PRIVATE_FOLDER)
    return folder


class Busy(OSError):
    """Another process holds the lock."""


class Lock:
    """Held by the one process that may write ``target``, and gone with it, however it ends.

    The lock is on a file ``.NAME.lock`` beside the target, which is removed when it is let go.

    Raises:
        Busy: another process holds it.
        OSError: the lock file cannot be made, or is not a regular file of this user.
    """

    def __init__(self, target: Path) -> None:
        self.path = _hidden(target, ".lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        while True:
            descriptor = os.open(self.path, flags, PRIVATE)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(None, "not a regular file", str(self.path))
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise Busy(None, "another process is writing it", str(target)) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:  # a file system without locks: the last one to end wins
                    os.close(descriptor)
                    raise
            except BaseException:
                os.close(descriptor)
                raise
            if self._is(status):
                self._descriptor: int | None = descriptor
                return
            os.close(descriptor)  # its last holder has just removed it

    def _is(self, status: os.stat_result) -> bool:
        """Whether the lock file's name still stands for the file that was locked."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(self.path.lstat(), status)
        return False

    def release(self) -> None:
        """Let go of it; once is enough."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
