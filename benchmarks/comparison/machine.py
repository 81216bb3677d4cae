"""This machine: its processor's name, the folder of its results, and the line above each that says what it is of."""

from __future__ import annotations

import datetime
import platform
import re
import subprocess
from collections.abc import Container
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"
"""Results by machine, then by what was measured; the tables are committed."""

CPUINFO = Path("/proc/cpuinfo")
NO_FAMILY = {"amd", "cpu", "gen", "intel", "processor", "r", "tm"}
"""Words of a processor's name that say nothing of its family."""
WIDEST = (("amx", "amx_int8"), ("vnni", "avx512_vnni"), ("avx512", "avx512f"), ("avx2", "avx2"), ("neon", "asimd"))
"""What a folder's name calls an instruction set, and the flag that Linux has for it; the widest first."""


def field(*names: str) -> str:
    """A field of the first CPU in /proc/cpuinfo; empty where there is none."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


def processor() -> str:
    """The processor's name, or at least its architecture."""
    return field("model name") or platform.machine()


def machine_name(processor: str, flags: Container[str]) -> str:
    """Family and widest instruction set, as ``xeon-amx``: one folder for processors that run the same code."""
    words = [word for word in re.findall(r"[A-Za-z0-9]+", processor) if word.lower() not in NO_FAMILY]
    family = next((word for word in words if word.isalpha()), "-".join(words) or "unknown").lower()
    widest = next((name for name, flag in WIDEST if flag in flags), None)
    return family if widest is None else f"{family}-{widest}"


def results_folder(what: str) -> Path:
    """Where this machine's results of one benchmark belong."""
    return RESULTS / machine_name(processor(), field("flags", "Features").split()) / what


def measured(threads: int) -> str:
    """What figures that are measured now are of: processor, threads, version and commit, day."""
    from bossa.version import __version__

    command = ["git", "-C", str(RESULTS.parent.parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = ""
    version = f"Bossa {__version__} ({commit})" if commit else f"Bossa {__version__}"
    threads_ = "1 thread" if threads == 1 else f"{threads} threads"
    return f"{processor()}, {threads_}; {version} of {datetime.datetime.now(datetime.UTC).date()}"


def headed(lines: str | list[str], table: str) -> str:
    """A table with what it is of above it, as a quotation."""
    head = [lines] if isinstance(lines, str) else lines
    return "".join(f"> {line}.\n" for line in head if line) + "\n" + table


def body(text: str) -> str:
    """The table alone, of a file that ``headed`` made."""
    lines = text.splitlines(keepends=True)
    while lines and lines[0].startswith(">"):
        del lines[0]
    return "".join(lines).strip() + "\n"
