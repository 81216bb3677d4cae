"""Packed weights on disk: one file a program and checkpoint, written once, mapped and shared by every process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bossa.errors import WeightsError, shortened, shown
from bossa.host import large_pages as pages
from bossa.host.files import PRIVATE, PRIVATE_FOLDER, create_beside, is_private, open_regular, private_folder
from bossa.host.home import NoHome, expanded
from bossa.weights.entry import FORMAT, HEADER, Header, checksum, parse, sample

ENDING = ".weights"
BESIDE = ".tmp"
STALE = 86_400.0
"""Seconds after which a file that a writer left behind is removed."""
KEY = re.compile(r"[0-9a-f]{64}\Z")

Fill = Callable[[Any, int], None]
"""Packs the weights into a writable map, from a byte offset on."""


@dataclass(frozen=True)
class CacheEntry:
    """One entry: its key, the checkpoint it came from, its bytes, and when it was last used (Unix time)."""

    key: str
    source: str
    bytes: int
    last_used: float
    path: Path


def anonymous(size: int, source: str) -> mmap.mmap:
    """Zeroed memory of its own, for weights that are packed from ``source``.

    Raises:
        WeightsError: there is not as much.
    """
    try:
        return pages.anonymous(size)
    except (OSError, OverflowError, ValueError):
        raise WeightsError(f"{source}: not enough memory for the packed weights ({size:,} bytes): free some") from None


def default_directory() -> Path:
    """``$BOSSA_CACHE``, else ``$XDG_CACHE_HOME/bossa``, else ``~/.cache/bossa``.

    A process without a home directory, as in some containers, has ``bossa-<user id>`` beside the temporary files.

    Raises:
        WeightsError: ``BOSSA_CACHE`` names the home of a user that there is not.
    """
    for variable, below in (("BOSSA_CACHE", ""), ("XDG_CACHE_HOME", "bossa")):
        if value := os.environ.get(variable):
            try:
                return expanded(value) / below
            except NoHome as error:
                name = shortened(shown(value), 200)
                raise WeightsError(f"{variable}: {name}: {error}: set it to another path") from None
    try:
        return expanded("~/.cache") / "bossa"
    except NoHome:
        from tempfile import gettempdir

        return Path(gettempdir()) / f"bossa-{os.geteuid()}"


class WeightCache:
    """The directory of packed weights. Several processes of one user may use it at once.

    An entry is whole or not there: it is written beside, then renamed. Its header and a line of each of its pages are
    checked when it is opened, and one that does not hold is built again; ``verify`` checks every byte.

    The directory is this user's alone, as are the files in it: weights are run as they are found, so nothing is used
    that somebody else could have written.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self.directory = (Path(directory) if directory is not None else default_directory()) / "weights"

    def key(self, slots: Sequence[dict[str, Any]], identity: str) -> str:
        """The name of the entry for these slots (as JSON) filled from this checkpoint."""
        text = json.dumps([FORMAT, list(slots), identity], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def find(self, key: str, total: int) -> tuple[Any, int] | None:
        """The map of an entry and the offset of the blob in it, or None where it is to be made."""
        memory = self._open(key, total)
        return None if memory is None else (memory, HEADER)

    def open_or_build(self, key: str, source: str, total: int, fill: Fill) -> tuple[Any, int, bool]:
        """Maps an entry, making it first where needed.

        Returns:
            The map, the offset of the blob in it, and whether the entry was there already. Where the directory
            cannot be written, the map is anonymous memory, and a warning says so.
        """
        found = self._open(key, total)
        if found is not None:
            return found, HEADER, True
        try:
            beside, file = self._create(key, HEADER + total)
        except OSError as error:
            _warn(self.directory, error, "free some space there, or set BOSSA_CACHE to another directory")
            memory = anonymous(HEADER + total, source)
            fill(memory, HEADER)
            return memory, HEADER, False
        try:
            with os.fdopen(file, "r+b") as handle:
                memory = mmap.mmap(handle.fileno(), HEADER + total, access=mmap.ACCESS_WRITE)
            pages.prefer_large(memory)
            fill(memory, HEADER)
            header = Header(key, source, total, sample(memory, total), checksum(memory, total))
            memory[:HEADER] = header.encode()
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
        try:
            os.replace(beside, self._path(key))
        except OSError as error:  # what is packed is good all the same: the map outlives the file's name
            beside.unlink(missing_ok=True)
            _warn(self._path(key), error, "remove what is in its place, or set BOSSA_CACHE to another directory")
        return self._open(key, total) or memory, HEADER, False

    def entries(self) -> list[CacheEntry]:
        """What is in the cache, the last used first."""
        found = []
        for path in self._files(ENDING):
            with contextlib.suppress(OSError):
                status = path.lstat()
                header = self._header(path)
                source = header.source if isinstance(header, Header) else f"({header})"
                found.append(CacheEntry(path.name[: -len(ENDING)], source, status.st_size, status.st_mtime, path))
        return sorted(found, key=lambda entry: entry.last_used, reverse=True)

    def verify(self) -> Iterator[tuple[CacheEntry, str]]:
        """Reads every byte of every entry.

        Yields:
            Each entry, the last used first, and what is wrong with it; nothing if it is as it was written.
        """
        for entry in self.entries():
            header = self._header(entry.path)
            if not isinstance(header, Header):
                yield entry, header
                continue
            memory = None if header.key != entry.key else self._open(entry.key, header.size, use=False)
            if memory is None or checksum(memory, header.size) != header.checksum:
                yield entry, "damaged"
            else:
                yield entry, ""

    def remove(self, entry: CacheEntry) -> None:
        """Removes an entry, or what has its place: anything but a directory that holds something.

        Raises:
            WeightsError: it cannot be removed.
        """
        try:
            if stat.S_ISDIR(entry.path.lstat().st_mode):
                entry.path.rmdir()  # what is in a directory is nothing that the cache has put there
            else:
                entry.path.unlink()
        except FileNotFoundError:
            pass  # another process was first
        except OSError as error:
            raise WeightsError(
                f"{shown(entry.path)}: cannot be removed ({error.strerror}): remove it yourself"
            ) from None

    def prune(
        self,
        max_bytes: int | None = None,
        older_than_days: float | None = None,
        everything: bool = False,
        failed: Callable[[WeightsError], object] = lambda _: None,
    ) -> list[CacheEntry]:
        """Removes entries: those unused for so many days, then the longest unused until the rest fit, or all.

        Args:
            failed: is told why an entry could not be removed; the rest are all the same.

        Returns:
            What was removed. A program that has an entry mapped keeps its weights.
        """
        self._remove_leftovers(0.0 if everything else STALE)
        now = time.time()
        removed = []
        kept = 0
        for entry in self.entries():
            old = older_than_days is not None and now - entry.last_used > older_than_days * 86_400
            full = max_bytes is not None and kept + entry.bytes > max_bytes
            if everything or old or full:
                try:
                    self.remove(entry)
                    removed.append(entry)
                    continue
                except WeightsError as error:
                    failed(error)
            kept += entry.bytes
        return removed

    def _path(self, key: str) -> Path:
        return self.directory / (key + ENDING)

    def _files(self, ending: str) -> Iterator[Path]:
        try:
            names = sorted(path for path in self.directory.iterdir() if path.name.endswith(ending))
        except OSError:
            return
        yield from (path for path in names if KEY.match(path.name[: -len(ending)]) or ending == BESIDE)

    def _open(self, key: str, total: int, *, use: bool = True) -> Any | None:
        """The entry mapped read-only, or None if it is not there or does not hold; ``use`` marks it as used now."""
        try:
            self._tighten()
            with os.fdopen(open_regular(self._path(key), is_private), "rb") as file:
                if os.fstat(file.fileno()).st_size != HEADER + total:
                    return None
                memory = mmap.mmap(file.fileno(), HEADER + total, access=mmap.ACCESS_READ)
                pages.prefer_large(memory)
                header = parse(memory[:HEADER])
                if not isinstance(header, Header) or (header.key, header.size) != (key, total):
                    return None
                if header.sample != sample(memory, total):
                    return None
                if use:
                    with contextlib.suppress(OSError):
                        os.utime(file.fileno())
        except (OSError, ValueError, OverflowError):
            return None
        return memory

    def _header(self, path: Path) -> Header | str:
        """The header of an entry, or why it is none that would be used."""
        try:
            with os.fdopen(open_regular(path, is_private), "rb") as file:
                header = parse(file.read(HEADER))
                size = os.fstat(file.fileno()).st_size
        except PermissionError:
            return "others may write to it"
        except OSError:
            return "not a regular file"
        if isinstance(header, Header) and size != HEADER + header.size:
            return "cut short or too long"
        return header

    def _tighten(self) -> None:
        """Closes a directory to others that was left open to them.

        Raises:
            OSError: there is none, or it is another user's.
        """
        status = self.directory.stat()
        if stat.S_IMODE(status.st_mode) != PRIVATE_FOLDER or status.st_uid != os.geteuid():
            private_folder(self.directory)

    def _create(self, key: str, size: int) -> tuple[Path, int]:
        """A new file of ``size`` zero bytes, with its space set aside so that writing to its map cannot fail."""
        private_folder(self.directory)
        self._remove_leftovers(STALE)
        beside, file = create_beside(self.directory / key, BESIDE, PRIVATE)
        try:
            os.fchmod(file, PRIVATE)  # whatever the umask took away
            if not is_private(os.fstat(file)):
                raise PermissionError(None, "its file system lets others write to every file")
            _reserve(file, size)
        except BaseException:
            os.close(file)
            beside.unlink(missing_ok=True)
            raise
        return beside, file

    def _remove_leftovers(self, age: float) -> None:
        now = time.time()
        for path in self._files(BESIDE):
            with contextlib.suppress(OSError):
                if now - path.lstat().st_mtime >= age:
                    path.unlink()


def _warn(place: Path, error: OSError, remedy: str) -> None:
    warnings.warn(
        f"{shortened(shown(place), 200)}: packed weights cannot be kept ({error.strerror or error}), so they are packed"
        f" again each time: {remedy}",
        stacklevel=4,
    )


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    zeros = bytes(1 << 20)
    for start in range(0, size, len(zeros)):
        os.pwrite(file, zeros[: size - start], start)
