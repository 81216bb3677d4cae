"""The command in a pipeline of real processes: readers that go away, disks that are full."""

from __future__ import annotations

import os
import subprocess
import sys

BOSSA = [sys.executable, "-m", "bossa"]


def test_a_reader_that_goes_away_ends_it_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        result = subprocess.run([*BOSSA, "run", "--help"], stdout=stdout, stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (141, b"")


def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        result = subprocess.run([*BOSSA, "run", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "bossa: No space left on device\n")


def test_packing_is_shown_on_a_terminal_and_cleared(monkeypatch, capfd):
    from bossa.cli.progress import Packing

    with Packing() as packing:
        packing(50, 100)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Packing() as packing:
        for done in (10, 10, 55):
            packing(done, 100)
    assert capfd.readouterr().err == "".join(
        f"\r\x1b[2K{text}" for text in ("packing weights: 10 %", "packing weights: 55 %", "")
    )
