"""Reads a container: every byte outside the members' data is compared with the one right encoding."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NoReturn

from bossa.errors import PefError
from bossa.pef.container import (
    CENTRAL,
    CENTRAL_SIGNATURE,
    END,
    END64,
    END64_SIGNATURE,
    END_SIGNATURE,
    LOCAL_SIGNATURE,
    LOCATOR64,
    LOCATOR64_SIGNATURE,
    MAX_MEMBERS,
    MAX_NAME,
    UTF8_NAMES,
    ZIP64_EXTRA,
    ZIP64_LIMIT,
    Entry,
    check_name,
    directory,
    local_header,
)

MOST_RECORD = CENTRAL.size + MAX_NAME + 28
"""Bytes of a record in the directory: a name, and the 64-bit sizes and offset."""
AGAIN = "compile the model again, or copy the file again"


@dataclass(frozen=True)
class Contents:
    """The members of a container: their directory entries and their data, which is not copied."""

    entries: dict[str, Entry]
    data: dict[str, memoryview]


def read(buffer: memoryview, where: str, limit: int = ZIP64_LIMIT) -> Contents:
    """Finds the members of the file in ``buffer`` and checks its structure; the data itself is not read.

    Raises:
        PefError: the buffer is not a ZIP, is cut short or has bytes that do not belong, or holds members that are
            compressed, repeated, badly named, misaligned, overlapping or out of range.
    """
    start, size, count = _end_of_directory(buffer, where)
    if size > count * MOST_RECORD:
        _damaged(where, "its directory of members is larger than so many members make it")
    entries = _parse(buffer[start : start + size], count, where)
    if bytes(buffer[start:]) != directory(entries, start, limit):
        _damaged(where, "its directory of members does not have the form that Bossa writes")
    position = 0
    data: dict[str, memoryview] = {}
    for entry in entries:
        if entry.offset != position:
            _damaged(where, f"member {entry.name!r} overlaps another member, or bytes lie between them")
        header = local_header(entry, limit)
        if bytes(buffer[position : position + len(header)]) != header:
            _damaged(where, f"the header of member {entry.name!r} disagrees with the directory")
        position += len(header)
        if position + entry.size > start:
            _damaged(where, f"member {entry.name!r} reaches beyond the members' part of the file")
        data[entry.name] = buffer[position : position + entry.size]
        position += entry.size
    if position != start:
        _damaged(where, "bytes that belong to no member lie before the directory")
    return Contents({entry.name: entry for entry in entries}, data)


def _damaged(where: str, what: str) -> NoReturn:
    raise PefError(f"{where}: this PEF is damaged: {what}: {AGAIN}")


def _end_of_directory(buffer: memoryview, where: str) -> tuple[int, int, int]:
    """Offset, bytes and number of members of the central directory."""
    total = buffer.nbytes
    if total < 4 or struct.unpack_from("<I", buffer)[0] != LOCAL_SIGNATURE:
        raise PefError(f"{where}: not a PEF (it does not start as one): pass a file made by 'bossa compile'")
    if total < END.size:
        _damaged(where, "it is cut short")
    signature, disk, first, here, count, size, start, comment = END.unpack_from(buffer, total - END.size)
    if signature != END_SIGNATURE:
        _damaged(where, "it is cut short, or bytes were added at its end")
    if disk or first or here != count or comment:
        _damaged(where, "its end record is not one that Bossa writes")
    if not 0 < count <= MAX_MEMBERS:
        _damaged(where, f"it claims {count} members, where a PEF holds 1 to {MAX_MEMBERS}")
    end = total - END.size
    if start == 0xFFFFFFFF:
        end -= END64.size + LOCATOR64.size
        if end < 0 or struct.unpack_from("<I", buffer, end)[0] != END64_SIGNATURE:
            _damaged(where, "its 64-bit end record is missing")
        if struct.unpack_from("<I", buffer, end + END64.size)[0] != LOCATOR64_SIGNATURE:
            _damaged(where, "its 64-bit end record is missing")
        size, start = END64.unpack_from(buffer, end)[8:]
    if start + size != end:
        _damaged(where, "its directory of members is not where its end record says")
    return start, size, count


def _parse(records: memoryview, count: int, where: str) -> list[Entry]:
    entries: list[Entry] = []
    seen: set[str] = set()
    position = 0
    for _ in range(count):
        if position + CENTRAL.size > records.nbytes:
            _damaged(where, "its directory of members ends early")
        fields = CENTRAL.unpack_from(records, position)
        signature, flags, method, crc = fields[0], fields[3], fields[4], fields[7]
        stored, size, name_size, extra_size, comment_size = fields[8:13]
        if signature != CENTRAL_SIGNATURE:
            _damaged(where, "its directory of members is garbled")
        position += CENTRAL.size
        raw = bytes(records[position : position + name_size])
        position += name_size
        extra = bytes(records[position : position + extra_size])
        position += extra_size + comment_size
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            _damaged(where, "a member's name is not UTF-8")
        check_name(name, where)
        if name in seen:
            _damaged(where, f"member {name!r} is there twice")
        seen.add(name)
        if method != 0:
            _damaged(where, f"member {name!r} is compressed, where a PEF stores its members as they are")
        if flags != UTF8_NAMES or stored != size:
            _damaged(where, f"member {name!r} is encrypted or streamed, where a PEF stores its members as they are")
        size, offset = _wide(size, fields[16], extra, name, where)
        entries.append(Entry(name, crc, size, offset))
    if position != records.nbytes:
        _damaged(where, "its directory of members has bytes left over")
    return entries


def _wide(size: int, offset: int, extra: bytes, name: str, where: str) -> tuple[int, int]:
    """The size and offset of a member, from its 64-bit record where it has one."""
    numbers = [number for number, value in enumerate((size, size, offset)) if value == 0xFFFFFFFF]
    if not numbers:
        return size, offset
    if len(extra) != 4 + 8 * len(numbers) or struct.unpack_from("<HH", extra) != (ZIP64_EXTRA, 8 * len(numbers)):
        _damaged(where, f"the 64-bit size of member {name!r} is missing")
    values = struct.unpack_from(f"<{len(numbers)}Q", extra, 4)
    wide = dict(zip(numbers, values, strict=True))
    return wide.get(0, size), wide.get(2, offset)
