"""The canonical bytes of a PEF's container: a ZIP whose members are stored, aligned and laid end to end.

There is exactly one right encoding of a list of members, so the writer prints it and the reader compares with it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from bossa.errors import PefError

ALIGNMENT = 64
"""The data of every member starts at a multiple of this many bytes."""
MAX_MEMBERS = 4096
MAX_NAME = 255
"""Bytes of a member's name in UTF-8."""
ZIP64_LIMIT = 0xFFFFFFFF
"""Sizes and offsets from here on need the 64-bit records of the ZIP format."""

LOCAL = struct.Struct("<IHHHHHIIIHH")
CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
END = struct.Struct("<IHHHHIIH")
END64 = struct.Struct("<IQHHIIQQQQ")
LOCATOR64 = struct.Struct("<IIQI")

LOCAL_SIGNATURE = 0x04034B50
CENTRAL_SIGNATURE = 0x02014B50
END_SIGNATURE = 0x06054B50
END64_SIGNATURE = 0x06064B50
LOCATOR64_SIGNATURE = 0x07064B50

UTF8_NAMES = 0x0800
VERSION, VERSION64 = 20, 45
MADE_BY_UNIX = 3 << 8
DATE, TIME = (1980 - 1980) << 9 | 1 << 5 | 1, 0  # 1 January 1980: the same input gives the same bytes
MODE = 0o100644 << 16
ZIP64_EXTRA = 0x0001
PADDING_EXTRA = 0xD935  # the alignment field that Android's zipalign writes: u16 alignment, then zeros


@dataclass(frozen=True)
class Entry:
    """One member: its name, CRC-32, size in bytes, and where its local header starts in the file."""

    name: str
    crc: int
    size: int
    offset: int


def check_name(name: str, where: str) -> None:
    """Refuses a member name that could leave a directory, or that two systems would read differently.

    Raises:
        PefError: it is empty, too long, absolute, or holds ``..``, a backslash, a colon or a control character.
    """
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        size = 0
    parts = name.split("/")
    if (
        not 0 < size <= MAX_NAME
        or any(part in ("", ".", "..") for part in parts)
        or any(ord(letter) < 32 or ord(letter) == 127 or letter in "\\:" for letter in name)
    ):
        raise PefError(f"{where}: {name[:80]!r} is not a member name that a PEF may hold: compile the model again")


def local_header(entry: Entry, limit: int = ZIP64_LIMIT) -> bytes:
    """The bytes before a member's data; they end at a multiple of ``ALIGNMENT``."""
    name = entry.name.encode("utf-8")
    big = entry.size >= limit
    size = 0xFFFFFFFF if big else entry.size
    extra = struct.pack("<HHQQ", ZIP64_EXTRA, 16, entry.size, entry.size) if big else b""
    start = entry.offset + LOCAL.size + len(name) + len(extra) + 6
    padding = -start % ALIGNMENT
    extra += struct.pack("<HHH", PADDING_EXTRA, 2 + padding, ALIGNMENT) + bytes(padding)
    version = VERSION64 if big else VERSION
    fields = (LOCAL_SIGNATURE, version, UTF8_NAMES, 0, TIME, DATE, entry.crc, size, size, len(name), len(extra))
    return LOCAL.pack(*fields) + name + extra


def directory(entries: Sequence[Entry], start: int, limit: int = ZIP64_LIMIT) -> bytes:
    """The central directory and the end records, from byte ``start`` to the end of the file."""
    records = b"".join(_central_record(entry, limit) for entry in entries)
    count, size = len(entries), len(records)
    tail = b""
    if start >= limit:
        end64 = start + size
        tail = END64.pack(
            END64_SIGNATURE, END64.size - 12, MADE_BY_UNIX | VERSION64, VERSION64, 0, 0, count, count, size, start
        )
        tail += LOCATOR64.pack(LOCATOR64_SIGNATURE, 0, end64, 1)
        start = 0xFFFFFFFF
    return records + tail + END.pack(END_SIGNATURE, 0, 0, count, count, size, start, 0)


def _central_record(entry: Entry, limit: int) -> bytes:
    name = entry.name.encode("utf-8")
    size, offset = entry.size, entry.offset
    extra = b""
    if size >= limit:
        extra += struct.pack("<QQ", size, size)
        size = 0xFFFFFFFF
    if offset >= limit:
        extra += struct.pack("<Q", offset)
        offset = 0xFFFFFFFF
    version = VERSION64 if extra else VERSION
    if extra:
        extra = struct.pack("<HH", ZIP64_EXTRA, len(extra)) + extra
    head = (CENTRAL_SIGNATURE, MADE_BY_UNIX | version, version, UTF8_NAMES, 0, TIME, DATE)
    return CENTRAL.pack(*head, entry.crc, size, size, len(name), len(extra), 0, 0, 0, MODE, offset) + name + extra
