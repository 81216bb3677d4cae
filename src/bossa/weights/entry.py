"""The file of one entry of the cache of packed weights: a header of a page, then the blob as it is mapped."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

FORMAT = 3
"""Raised when the packed layout, how weights are rounded, or the file changes; old entries are then built again."""
MAGIC = b"BOSSAWTS"
HEADER = 4096
"""Bytes before the blob, so that it starts on a page."""
LINE = 64
STEP = 63
"""Every 63rd line of 64 bytes is sampled: one or two of every page of 4 KB, at another place in each."""
CHUNK = 16 << 20

OTHER_VERSION: Literal["of another version of bossa"] = "of another version of bossa"
Problem = Literal["damaged", "of another version of bossa"]


@dataclass(frozen=True)
class Header:
    """What an entry says about itself.

    Attributes:
        key: the entry's name.
        source: the checkpoint that it was packed from, for people.
        size: of the blob, in bytes.
        sample: checksum of the sampled lines, looked at whenever the entry is opened.
        checksum: of every byte of the blob, looked at by ``bossa cache verify``.
    """

    key: str
    source: str
    size: int
    sample: int
    checksum: int

    def encode(self) -> bytes:
        """``HEADER`` bytes."""
        text = b""
        for length in (1000, 300, 0):
            text = json.dumps(vars(self) | {"source": self.source[:length]}).encode("ascii")
            if len(text) <= HEADER - 20:
                break
        head = MAGIC + struct.pack("<III", FORMAT, len(text), zlib.crc32(text)) + text
        return head + bytes(HEADER - len(head))


def parse(data: bytes) -> Header | Problem:
    """The header in the first ``HEADER`` bytes of a file, or what is wrong with it."""
    if len(data) != HEADER or data[:8] != MAGIC:
        return "damaged"
    version, size, crc = struct.unpack_from("<III", data, 8)
    if version != FORMAT:
        return OTHER_VERSION
    text = data[20 : 20 + size]
    try:
        fields = json.loads(text) if zlib.crc32(text) == crc else None
        if not isinstance(fields, dict):
            return "damaged"
        header = Header(**fields)
    except (TypeError, ValueError, RecursionError):
        return "damaged"
    kinds = {str: (header.key, header.source), int: (header.size, header.sample, header.checksum)}
    return header if all(type(value) is kind for kind, values in kinds.items() for value in values) else "damaged"


def sample(memory: Any, total: int) -> int:
    """CRC-32 of one line of 64 bytes in every 4,032, and of the last.

    It costs about 3 ms for 100 MB in memory, and notices what a machine leaves that stopped before all was on the
    disk: pages of the file that are zeros, or hold what was there before. A page that was written whole and changed
    later between the lines, as by a failing disk, is not noticed; ``checksum`` notices it.
    """
    lines = np.frombuffer(memory, np.uint8, total // LINE * LINE, HEADER).reshape(-1, LINE)[::STEP]
    crc = 0
    for start in range(0, len(lines), CHUNK // LINE):
        crc = zlib.crc32(np.ascontiguousarray(lines[start : start + CHUNK // LINE]).data, crc)
    return zlib.crc32(memory[HEADER + max(0, total - LINE) : HEADER + total], crc)


def checksum(memory: Any, total: int) -> int:
    """CRC-32 of the CRC-32s of 16 MB each, computed on the cores of the process: every bit counts."""
    from concurrent.futures import ThreadPoolExecutor

    from bossa.host.resources import cores

    whole = memoryview(memory)[HEADER : HEADER + total]
    with whole, ThreadPoolExecutor(min(8, cores())) as pool:
        crc = 0
        for part in pool.map(_crc, _parts(whole)):
            crc = zlib.crc32(struct.pack("<I", part), crc)
        return crc


def _parts(whole: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(whole), CHUNK):
        yield whole[start : start + CHUNK]


def _crc(part: memoryview) -> int:
    with part:
        return zlib.crc32(part)
