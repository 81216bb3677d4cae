"""Whether the bytes of a shared library are all there, before the dynamic loader maps them and trusts their headers."""

from __future__ import annotations

import platform
import struct
import sys

_MACHINES = {"x86_64": 62, "AMD64": 62, "aarch64": 183, "arm64": 183}
"""``e_machine`` by the machine's name."""
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_ENTRY = struct.Struct("<QQ")
_GNU_HASH_HEAD = struct.Struct("<IIII")
_SHARED_OBJECT, _NO_BITS = 3, 8
_LOAD, _DYNAMIC = 1, 2
_NULL, _HASH, _STRINGS, _SYMBOLS, _STRINGS_SIZE, _GNU_HASH = 0, 4, 5, 6, 10, 0x6FFFFEF5
_SIZED = ((7, 8), (23, 2))
"""The entries of tables of relocations, with those of their sizes."""
_SYMBOL_SIZE = 24
_DAMAGED = "what the dynamic loader reads of it is damaged"


def trouble(data: bytes | memoryview) -> str | None:
    """Why the dynamic loader should not have a library; None where nothing speaks against it.

    A library that is cut short would be mapped all the same, and reading past its end would end the process (SIGBUS).
    Only those of 64-bit little-endian Linux are looked at, and of them the headers and where the dynamic section says
    that symbols, their names, their hashes and relocations are; not what is in these, nor the code.
    """
    if not sys.platform.startswith("linux") or sys.byteorder != "little" or sys.maxsize < 1 << 32:
        return None
    data = memoryview(data)
    size = data.nbytes
    if size < _HEADER.size:
        return "it is cut short"
    identity, kind, machine, _, _, segments, sections, _, _, segment_size, count, section_size, section_count, _ = (
        _HEADER.unpack_from(data)
    )
    if identity[:7] != b"\x7fELF\x02\x01\x01" or kind != _SHARED_OBJECT:
        return "it is not a 64-bit shared library of ELF"
    if machine != _MACHINES.get(platform.machine(), machine):
        return f"it is for another machine than this one ({platform.machine()})"
    if count == 0 or segment_size != _SEGMENT.size or (section_count and section_size != _SECTION.size):
        return "its headers are not those of a shared library"
    if segments + count * segment_size > size or sections + section_count * section_size > size:
        return "it is cut short"
    loaded: list[tuple[int, int, int]] = []
    dynamic: list[tuple[int, int]] = []
    for i in range(count):
        what, _, offset, address, _, held, _, _ = _SEGMENT.unpack_from(data, segments + i * segment_size)
        if offset + held > size:
            return "it is cut short"
        if what == _LOAD:
            loaded.append((address, held, offset))
        elif what == _DYNAMIC:
            dynamic.append((address, held))
    for i in range(section_count):
        _, section, _, _, offset, held, _, _, _, _ = _SECTION.unpack_from(data, sections + i * section_size)
        if section != _NO_BITS and offset + held > size:
            return "it is cut short"
    return None if len(dynamic) == 1 and _is_whole(data, loaded, *dynamic[0]) else _DAMAGED


def _is_whole(data: memoryview, loaded: list[tuple[int, int, int]], address: int, held: int) -> bool:
    """Whether the dynamic section ends, and all that it says is where the library has bytes."""

    def place(address: int, size: int) -> int | None:
        return next((address - a + offset for a, n, offset in loaded if a <= address and address + size <= a + n), None)

    start = place(address, held)
    if start is None or held % _ENTRY.size:
        return False
    entries: dict[int, int] = {}
    for tag, value in _ENTRY.iter_unpack(data[start : start + held]):
        if tag == _NULL:
            break
        entries[tag] = value
    else:
        return False
    if not {_STRINGS, _STRINGS_SIZE, _SYMBOLS} <= entries.keys() or not {_HASH, _GNU_HASH} & entries.keys():
        return False
    length = entries[_STRINGS_SIZE]
    names, symbols = place(entries[_STRINGS], length), place(entries[_SYMBOLS], _SYMBOL_SIZE)
    if not length or names is None or symbols is None or data[names] or data[names + length - 1]:
        return False
    if any(data[symbols : symbols + _SYMBOL_SIZE]):  # the first is none
        return False
    if any(table in entries and place(entries[table], entries.get(size, 0)) is None for table, size in _SIZED):
        return False
    if _HASH in entries:
        head = place(entries[_HASH], 8)
        buckets, chains = struct.unpack_from("<II", data, head) if head is not None else (0, 0)
        if not buckets or place(entries[_HASH], 8 + 4 * (buckets + chains)) is None:
            return False
    if _GNU_HASH in entries:
        head = place(entries[_GNU_HASH], _GNU_HASH_HEAD.size)
        buckets, _, words, _ = _GNU_HASH_HEAD.unpack_from(data, head) if head is not None else (0, 0, 0, 0)
        if not buckets or not words or place(entries[_GNU_HASH], _GNU_HASH_HEAD.size + 8 * words + 4 * buckets) is None:
            return False
    return True
