"""A program file of any kind, mapped or in memory. Nothing in it is executed here, and nothing is used unchecked."""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from bossa.errors import PefError
from bossa.pef import reader, writer
from bossa.pef.checks import parse
from bossa.pef.manifest import FORMAT_VERSION, MAX_BYTES, Member

MANIFEST = "manifest.json"
WEIGHTS = "weights.bin"

Data = bytes | bytearray | memoryview | mmap.mmap


class AnyManifest(Protocol):
    """What every kind of manifest has."""

    @property
    def members(self) -> Mapping[str, Member]: ...

    def encode(self) -> bytes: ...


M = TypeVar("M", bound=AnyManifest)


class ProgramFile(Generic[M]):
    """A program file: ``open`` maps one, ``build`` makes one in memory, ``save`` writes it.

    The manifest is checked when the file is opened. Every other member is compared with its SHA-256 the first time
    that it is read, but for ``weights.bin``, which may be many gigabytes: ``verify`` checks that too.
    Safe to read from several threads. Views of members stay valid after ``close``; the map goes when the last does.
    """

    def __init__(self, manifest: M, data: Mapping[str, memoryview], where: str, path: Path | None) -> None:
        self.manifest = manifest
        self.path = path
        self.where = where
        self._data = {name: data[name] for name in sorted(data, key=_order)}
        self._sums: Mapping[str, int] = {}  # CRC-32 of the members, where they come from a file
        self._checked: set[str] = set()

    made_by: ClassVar[str] = "'bossa compile'"
    """What makes such a file, for messages."""

    @classmethod
    def _manifest(cls, data: Mapping[str, Any], where: str) -> M:
        """The manifest in a parsed JSON object, every field checked."""
        raise NotImplementedError

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Maps the file at ``path`` and checks its structure and manifest.

        Raises:
            PefError: there is no such file, it cannot be read, it is not a PEF, is damaged, or of a newer format.
        """
        path = Path(path)
        if os.path.isdir(path):
            raise PefError(f"{path}: is a directory: pass the .pef file in it")
        if os.path.exists(path) and not os.path.isfile(path):
            raise PefError(f"{path}: is not a regular file, so it cannot be mapped: pass a .pef file")
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if size else memoryview(b"")
        except FileNotFoundError:
            raise PefError(f"{path}: no such file: make one with {cls.made_by}") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise PefError(f"{path}: cannot be read ({reason}): check the path and its permissions") from None
        return cls._read(data, str(path), path)

    @classmethod
    def from_bytes(cls, data: Data, where: str = "a PEF in memory") -> Self:
        """Reads a PEF from memory, with all the checks of ``open``; ``where`` names it in messages."""
        return cls._read(memoryview(data).cast("B"), where, None)

    @classmethod
    def build(cls, manifest: Mapping[str, Any], members: Mapping[str, Data]) -> Self:
        """Makes a PEF in memory; ``format_version`` and ``members`` of the manifest are filled in here.

        Raises:
            PefError: the manifest is not valid, or a member's name is not one that a PEF may hold.
        """
        where = "the new PEF"
        views = {name: memoryview(members[name]).cast("B") for name in sorted(members, key=_order)}
        if MANIFEST in views:
            raise PefError(f"{where}: {MANIFEST} is written by Bossa itself: leave it out of the members")
        filled = dict(manifest)
        filled["format_version"] = FORMAT_VERSION
        filled["members"] = {
            name: {"size": view.nbytes, "sha256": hashlib.sha256(view).hexdigest()} for name, view in views.items()
        }
        encoded = cls._manifest(filled, f"{where}: {MANIFEST}").encode()
        if len(encoded) > MAX_BYTES:
            raise PefError(f"{where}: {MANIFEST} is larger than {MAX_BYTES >> 20} MiB: report this as a bug")
        checked = cls._manifest(parse(encoded, f"{where}: {MANIFEST}"), f"{where}: {MANIFEST}")
        cls._check_together(checked, {name: view.nbytes for name, view in views.items()}, where)
        pef = cls(checked, {MANIFEST: memoryview(encoded), **views}, where, None)
        pef._checked.update(pef._data)
        return pef

    @classmethod
    def _read(cls, data: memoryview, where: str, path: Path | None) -> Self:
        contents = reader.read(data, where)
        entry = contents.entries.get(MANIFEST)
        if entry is None:
            raise PefError(f"{where}: not a PEF: it has no {MANIFEST}: pass a file made by 'bossa compile'")
        if entry.size > MAX_BYTES:
            raise PefError(f"{where}: its {MANIFEST} is larger than {MAX_BYTES >> 20} MiB: compile the model again")
        encoded = bytes(contents.data[MANIFEST])
        if zlib.crc32(encoded) != entry.crc:
            raise PefError(f"{where}: this PEF is damaged: its {MANIFEST} has a wrong checksum: {reader.AGAIN}")
        held = list(contents.data)
        if held != sorted(held, key=_order):
            raise PefError(
                f"{where}: this PEF is damaged: its members are not in order ({MANIFEST}, the others by name,"
                f" {WEIGHTS}): {reader.AGAIN}"
            )
        manifest = cls._manifest(parse(encoded, f"{where}: {MANIFEST}"), f"{where}: {MANIFEST}")
        sizes = {name: view.nbytes for name, view in contents.data.items() if name != MANIFEST}
        cls._check_together(manifest, sizes, where)
        program_file = cls(manifest, contents.data, where, path)
        program_file._sums = {name: entry.crc for name, entry in contents.entries.items()}
        return program_file

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the file beside ``path`` and renames it there; missing directories are made.

        Returns:
            The path. Saving the same PEF again gives the same bytes.

        Raises:
            PefError: it cannot be written; nothing is left behind, and a file that was there is as it was.
        """
        writer.write(Path(path), self._data)
        return Path(path)

    def names(self) -> list[str]:
        """The names of all members, ``manifest.json`` first."""
        return list(self._data)

    def member(self, name: str) -> memoryview:
        """The bytes of a member, not copied, compared with its SHA-256 the first time (``weights.bin`` is not).

        Raises:
            PefError: there is no such member, or it is damaged.
        """
        data = self._data.get(name)
        if data is None:
            raise PefError(f"{self.where}: has no member {name!r}: compile the model again")
        if name != WEIGHTS:
            self._check(name)
        return data

    def verify(self) -> None:
        """Compares every member with its SHA-256, ``weights.bin`` too.

        Raises:
            PefError: a member is damaged.
        """
        for name in self._data:
            self._check(name)

    def _check(self, name: str) -> None:
        if name in self._checked or name == MANIFEST:
            return
        if hashlib.sha256(self._data[name]).hexdigest() != self.manifest.members[name].sha256:
            raise PefError(f"{self.where}: this PEF is damaged: member {name!r} has a wrong SHA-256: {reader.AGAIN}")
        if name in self._sums and writer.checksum(self._data[name]) != self._sums[name]:
            raise PefError(f"{self.where}: this PEF is damaged: member {name!r} has a wrong CRC-32: {reader.AGAIN}")
        self._checked.add(name)

    def _text(self, name: str) -> str:
        try:
            return bytes(self.member(name)).decode("utf-8")
        except UnicodeDecodeError:
            raise PefError(f"{self.where}: member {name!r} is not UTF-8 text: compile the model again") from None

    def close(self) -> None:
        """Lets go of the file. Views that were handed out keep their memory alive."""
        self._data.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def _check_together(cls, manifest: M, sizes: Mapping[str, int], where: str) -> None:
        """Checks that the manifest and the members tell the same story."""
        promised = {name: member.size for name, member in manifest.members.items()}
        if promised != dict(sizes):
            names = _listed(name for name in {*promised, *sizes} if promised.get(name) != sizes.get(name))
            raise PefError(
                f"{where}: this PEF is damaged: its {MANIFEST} and its members disagree about {names}: {reader.AGAIN}"
            )


def _order(name: str) -> tuple[bool, bool, str]:
    """The manifest comes first, then the others in the order of their names, the weights last."""
    return name != MANIFEST, name == WEIGHTS, name


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return ", ".join(found[:4]) + more
