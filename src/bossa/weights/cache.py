"""Packed weights on disk: one file a program and checkpoint, written once, mapped and shared by every process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import secrets
import struct
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bossa import pages
from bossa.errors import WeightsError

FORMAT = 2
"""Raised when the packed layout, how weights are rounded, or the file changes; old entries are then built again."""
MAGIC = b"BOSSAWTS"
HEADER = 4096
"""Bytes before the blob, so that it starts on a page."""
ENDING = ".weights"
BESIDE = ".tmp"
STALE = 86_400.0
"""Seconds after which a file that a writer left behind is removed."""
SAMPLES, SAMPLE = 64, 1024
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
        raise WeightsError(f"{source}: packed, the weights take {size:,} bytes, which cannot be had here") from None


def default_directory() -> Path:
    """``$BOSSA_CACHE``, else ``$XDG_CACHE_HOME/bossa``, else ``~/.cache/bossa``."""
    if value := os.environ.get("BOSSA_CACHE"):
        return Path(value).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bossa"


class WeightCache:
    """The directory of packed weights. Several processes may use it at once.

    An entry is whole or not there: it is written beside, then renamed. Its header and a sample of its bytes are
    checked when it is opened, and one that does not hold is built again.
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
            beside, file = self._create(HEADER + total)
        except OSError as error:
            warnings.warn(
                f"{self.directory}: packed weights cannot be kept ({error.strerror or error}), so they are packed"
                " again each time: free some space there, or set BOSSA_CACHE to another directory",
                stacklevel=3,
            )
            memory = anonymous(HEADER + total, source)
            fill(memory, HEADER)
            return memory, HEADER, False
        try:
            with os.fdopen(file, "r+b") as handle:
                memory = mmap.mmap(handle.fileno(), HEADER + total, access=mmap.ACCESS_WRITE)
            pages.prefer_large(memory)
            fill(memory, HEADER)
            memory[:HEADER] = _header(key, source, total, _sample(memory, total))
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
        try:
            beside.replace(self._path(key))
        except OSError:  # what is packed is good all the same: the map outlives the file's name
            beside.unlink(missing_ok=True)
        return self._open(key, total) or memory, HEADER, False

    def entries(self) -> list[CacheEntry]:
        """What is in the cache, the last used first."""
        found = []
        for path in self._files(ENDING):
            with contextlib.suppress(OSError, ValueError):
                status = path.stat()
                with path.open("rb") as file:
                    header = _parse(file.read(HEADER))
                source = str(header.get("source", "")) if header else "(damaged)"
                found.append(CacheEntry(path.name[: -len(ENDING)], source, status.st_size, status.st_mtime, path))
        return sorted(found, key=lambda entry: entry.last_used, reverse=True)

    def prune(
        self, max_bytes: int | None = None, older_than_days: float | None = None, everything: bool = False
    ) -> list[CacheEntry]:
        """Removes entries: those unused for so many days, then the longest unused until the rest fit, or all.

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
                with contextlib.suppress(OSError):
                    entry.path.unlink()
                    removed.append(entry)
                    continue
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

    def _open(self, key: str, total: int) -> Any | None:
        """The entry mapped read-only, or None if it is not there or does not hold."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size != HEADER + total:
                    return None
                memory = mmap.mmap(file.fileno(), HEADER + total, access=mmap.ACCESS_READ)
                pages.prefer_large(memory)
        except (OSError, ValueError):
            return None
        header = _parse(memory[:HEADER])
        if header is None or (header.get("key"), header.get("bytes")) != (key, total):
            return None
        if header.get("sample") != _sample(memory, total):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return memory

    def _create(self, size: int) -> tuple[Path, int]:
        """A new file of ``size`` zero bytes, with its space set aside so that writing to its map cannot fail."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers(STALE)
        beside = self.directory / (secrets.token_hex(16) + BESIDE)
        file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
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
                if now - path.stat().st_mtime >= age:
                    path.unlink()


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    zeros = bytes(1 << 20)
    for start in range(0, size, len(zeros)):
        os.pwrite(file, zeros[: size - start], start)


def _header(key: str, source: str, total: int, sample: int) -> bytes:
    text = b""
    for length in (1000, 300, 0):
        fields = {"key": key, "bytes": total, "sample": sample, "source": source[:length]}
        text = json.dumps(fields).encode("ascii")
        if len(text) <= HEADER - 20:
            break
    head = MAGIC + struct.pack("<III", FORMAT, len(text), zlib.crc32(text)) + text
    return head + bytes(HEADER - len(head))


def _parse(header: bytes) -> dict[str, Any] | None:
    if len(header) != HEADER or header[:8] != MAGIC:
        return None
    version, size, crc = struct.unpack_from("<III", header, 8)
    text = header[20 : 20 + size]
    if version != FORMAT or zlib.crc32(text) != crc:
        return None
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _sample(memory: Any, total: int) -> int:
    """CRC-32 of pieces spread over the blob, which notices pages that never reached the disk."""
    crc = 0
    step = max(SAMPLE, total // SAMPLES)
    for start in range(0, total, step):
        crc = zlib.crc32(memory[HEADER + start : HEADER + min(start + SAMPLE, total)], crc)
    return crc
