"""Libraries that are not all there: a line, where the dynamic loader would let the process end."""

from __future__ import annotations

import _ctypes
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.errors import PefError
from bossa.targets.cpu.elf import trouble
from bossa.targets.cpu.loader import load_library

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libraries of Linux")

DAMAGED = "what the dynamic loader reads of it is damaged"
LIBRARY = Path(_ctypes.__file__).read_bytes()
"""Some library that loads here."""


def test_a_whole_library_has_no_trouble() -> None:
    assert trouble(LIBRARY) is None
    assert trouble(memoryview(LIBRARY + b"more")) is None


@given(st.integers(0, len(LIBRARY) - 1))
@settings(max_examples=100, deadline=None)
def test_a_library_that_is_cut_anywhere_is_refused_before_it_is_loaded(size: int) -> None:
    with pytest.raises(PefError, match=r"^x\.pef: its program does not load on this machine \(it is") as caught:
        load_library(LIBRARY[:size], "x.pef")
    assert "\n" not in str(caught.value)


@given(st.integers(0, 63), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_no_change_of_a_header_makes_the_check_fail(at: int, byte: int) -> None:
    changed = bytearray(LIBRARY)
    changed[at] = byte
    assert trouble(bytes(changed)) in {
        None, "it is cut short", "it is not a 64-bit shared library of ELF",
        f"it is for another machine than this one ({os.uname().machine})",
        "its headers are not those of a shared library", DAMAGED,
    }  # fmt: skip


@pytest.mark.parametrize("byte", [0, 255])
@pytest.mark.parametrize("start", [1024, 4096])
def test_a_library_whose_headers_alone_are_whole_is_refused_before_it_is_loaded(start: int, byte: int) -> None:
    changed = bytearray(LIBRARY)
    changed[start:] = bytes([byte]) * (len(changed) - start)
    sections = int.from_bytes(LIBRARY[40:48], "little")
    changed[sections:] = LIBRARY[sections:]
    with pytest.raises(PefError, match=rf"^x\.pef: its program does not load on this machine \({DAMAGED}\)"):
        load_library(bytes(changed), "x.pef")


def dynamic_section() -> tuple[int, int]:
    """Its offset and size."""
    at, size, count = int.from_bytes(LIBRARY[32:40], "little"), 56, int.from_bytes(LIBRARY[56:58], "little")
    for start in range(at, at + count * size, size):
        kind, _, offset, _, _, held, _, _ = struct.unpack_from("<IIQQQQQQ", LIBRARY, start)
        if kind == 2:
            return offset, held
    raise AssertionError("it has none")


@pytest.mark.parametrize("tag", [5, 6, 7, 10, 0x6FFFFEF5])
def test_tables_of_a_library_that_lie_outside_of_it_are_refused(tag: int) -> None:
    """Strings, symbols, relocations, the size of the strings, hashes."""
    offset, held = dynamic_section()
    changed = bytearray(LIBRARY)
    places = [at for at in range(offset, offset + held, 16) if LIBRARY[at : at + 8] == tag.to_bytes(8, "little")]
    assert len(places) == 1
    changed[places[0] + 8 : places[0] + 16] = (1 << 40).to_bytes(8, "little")
    assert trouble(bytes(changed)) == DAMAGED


def test_a_dynamic_section_without_an_end_is_refused() -> None:
    offset, held = dynamic_section()
    changed = bytearray(LIBRARY)
    for at in range(offset, offset + held, 16):
        if LIBRARY[at : at + 8] == bytes(8):
            changed[at] = 1
    assert trouble(bytes(changed)) == DAMAGED


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_change_of_the_dynamic_section_makes_the_check_fail(data: st.DataObject) -> None:
    offset, held = dynamic_section()
    changed = bytearray(LIBRARY)
    for at, byte in data.draw(st.dictionaries(st.integers(offset, offset + held - 1), st.integers(0, 255))).items():
        changed[at] = byte
    assert trouble(bytes(changed)) in {None, DAMAGED}


def test_a_library_for_another_machine_is_named_as_such() -> None:
    other = bytearray(LIBRARY)
    other[18:20] = (243).to_bytes(2, "little")  # RISC-V
    with pytest.raises(PefError, match="for another machine"):
        load_library(bytes(other), "x.pef")


def test_a_limit_on_the_size_of_files_is_named() -> None:
    """It holds for files in memory too; compiling anew, which other failures advise, would not help."""
    code = (
        "import _ctypes, pathlib; from bossa.errors import BossaError\n"
        "from bossa.targets.cpu.loader import load_library\n"
        "try: load_library(pathlib.Path(_ctypes.__file__).read_bytes(), 'x.pef')\n"
        "except BossaError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, 1 << 12)),
    )  # fmt: skip
    assert result.stdout.startswith("x.pef: its program, ")
    assert "raise the limit (ulimit -f)" in result.stdout
    assert "--rebuild" not in result.stdout
