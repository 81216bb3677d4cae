"""Memory in large pages, where the system has them."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from bossa.host import large_pages as pages
from support.smaps import of_map

LARGE = 2 << 20


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
    assert of_map(np.frombuffer(memory, np.uint8), "THPeligible") > 0


def test_a_map_of_a_file_may_be_asked_too(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 16)
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    pages.prefer_large(memory)
    assert memory[:256] == bytes(range(256))
    memory.close()
