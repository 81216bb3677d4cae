"""Memory in large pages, where the system has them."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import pytest

from bossa import pages

LARGE = 2 << 20


def of_map(memory: mmap.mmap, field: str) -> int:
    """A figure of the map from /proc/self/smaps."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first:
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end
        elif inside and first == f"{field}:":
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field} of the map")


def test_anonymous_memory_is_zero_and_of_any_size() -> None:
    for size in (0, 1, 4096, LARGE + 1):
        memory = pages.anonymous(size)
        assert len(memory) == max(size, 1)
        assert not any(memory[: 1 << 16])
        memory.close()


def test_anonymous_memory_is_in_large_pages_where_the_system_gives_them() -> None:
    mode = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not mode.is_file() or "[never]" in mode.read_text():
        pytest.skip("this system has no large pages to give")
    memory = pages.anonymous(4 * LARGE)
    for at in range(0, len(memory), 4096):
        memory[at] = 1
    # A system short of whole large pages may give fewer of them.
    assert of_map(memory, "THPeligible") > 0
    memory.close()


def test_a_map_of_a_file_may_be_asked_too(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 16)
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    pages.prefer_large(memory)
    assert memory[:256] == bytes(range(256))
    memory.close()
