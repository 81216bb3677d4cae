"""The arguments that the program was started with, kept for the session to read."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from pathlib import Path

from bossa.errors import SambaError, shown
from bossa.pef import is_file_name

DEFAULT_LEVEL = "o3"
DEFAULT_FOLDER = "out"

_kept = Namespace()


def keep(arguments: Namespace) -> None:
    """Make a copy of these the arguments of the process."""
    global _kept
    _kept = Namespace(**vars(arguments))


def current() -> Namespace:
    """The arguments that were parsed last, or an empty namespace."""
    return _kept


def is_inference() -> bool:
    """Whether the program was started with ``--inference``."""
    return bool(getattr(_kept, "inference", False))


def optimization_level() -> str:
    """``o0``, ``o1``, ``o2`` or ``o3``."""
    return getattr(_kept, "optimization_level", DEFAULT_LEVEL)


def compile_path() -> Path:
    """Where the PEF goes: ``<output-folder>/<pef-name>/<pef-name>.pef``.

    Without a name, one of the time and the process, so that no earlier PEF is written over.

    Raises:
        SambaError: the name is no file name.
    """
    folder = getattr(_kept, "output_folder", None) or DEFAULT_FOLDER
    name = getattr(_kept, "pef_name", None) or f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    if not isinstance(name, str) or not is_file_name(name):
        raise SambaError(
            f"--pef-name {shown(repr(name))[:80]} is not a file name: give the folder with --output-folder; a name"
            " has at most 200 bytes and no control characters"
        )
    return Path(folder) / name / f"{name}.pef"


def pef_path() -> Path | None:
    """The PEF that ``run`` was given; None where the program was not started so."""
    given = getattr(_kept, "pef", None)
    return Path(given) if given else None


def compile_threads() -> int | None:
    """How many threads may compile: ``SN_NUM_THREADS``; None where it is not set.

    Raises:
        SambaError: It is not a number of threads.
    """
    text = os.environ.get("SN_NUM_THREADS")
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SambaError(f"SN_NUM_THREADS={text}: not a number of threads")
    return int(text)
