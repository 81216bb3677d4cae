"""Writes a container: beside its final place first, then renamed, so that nobody ever sees half a file."""

from __future__ import annotations

import contextlib
import errno
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from bossa.errors import PefError, shown
from bossa.host.files import replacing
from bossa.pef.container import MAX_MEMBERS, ZIP64_LIMIT, Entry, check_name, directory, local_header

CHUNK = 1 << 24
LONGEST_NAME = 200
"""Bytes of a PEF's name: file systems allow 255, and the file has others beside it while it is written."""


def is_file_name(name: str) -> bool:
    """Whether a PEF's name can be that of its file: one name of letters that are seen, with no folder before it."""
    if name in ("", ".", "..") or "/" in name or shown(name) != name:
        return False
    return len(name.encode()) <= LONGEST_NAME


def encode(members: Mapping[str, memoryview], where: str, limit: int = ZIP64_LIMIT) -> Iterator[bytes | memoryview]:
    """Yields the file's bytes in order; the members lie in the order of the mapping."""
    if len(members) > MAX_MEMBERS:
        raise PefError(f"{where}: {len(members)} members are more than the {MAX_MEMBERS} a PEF may hold")
    entries = []
    position = 0
    for name, data in members.items():
        check_name(name, where)
        entry = Entry(name, checksum(data), data.nbytes, position)
        header = local_header(entry, limit)
        yield header
        for start in range(0, data.nbytes, CHUNK):
            yield data[start : start + CHUNK]
        entries.append(entry)
        position += len(header) + data.nbytes
    yield directory(entries, position, limit)


def checksum(data: memoryview) -> int:
    """CRC-32 of the data, a chunk at a time."""
    crc = 0
    for start in range(0, data.nbytes, CHUNK):
        crc = zlib.crc32(data[start : start + CHUNK], crc)
    return crc


def write(path: Path, members: Mapping[str, memoryview], limit: int = ZIP64_LIMIT) -> None:
    """Writes the members to ``path``, replacing what is there; on failure what was there stays and nothing is added.

    Raises:
        PefError: the directory or file cannot be written, or the disk is full.
    """
    made: list[Path] = []
    done = False
    try:
        _make_directories(path.parent, made)
        with replacing(path) as file:
            for chunk in encode(members, str(path), limit):
                file.write(chunk)
        done = True
    except OSError as error:
        raise PefError(f"{path}: cannot be written: {_reason(error)}") from error
    finally:
        if not done:
            for folder in reversed(made):
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _make_directories(folder: Path, made: list[Path]) -> None:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        made.append(path)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk is full, or a limit on file size is reached: free some space, or write elsewhere"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no permission to write there: choose another output folder"
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return "a directory or file is in the way: choose another output folder"
    return f"{error.strerror or error}: choose another output folder"
