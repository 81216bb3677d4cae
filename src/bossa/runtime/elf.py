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
_SHARED_OBJECT, _NO_BITS = 3, 8


def trouble(data: bytes | memoryview) -> str | None:
    """Why the dynamic loader should not have a library; None where nothing speaks against it.

    A library that is cut short would be mapped all the same, and reading past its end would end the process (SIGBUS).
    Only those of 64-bit little-endian Linux are looked at, and of them what the headers say, not what is in the parts.
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
    for i in range(count):
        _, _, offset, _, _, held, _, _ = _SEGMENT.unpack_from(data, segments + i * segment_size)
        if offset + held > size:
            return "it is cut short"
    for i in range(section_count):
        _, section, _, _, offset, held, _, _, _, _ = _SECTION.unpack_from(data, sections + i * section_size)
        if section != _NO_BITS and offset + held > size:
            return "it is cut short"
    return None
