"""One case: what became of an input, and what was done meanwhile that no reader should do."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from bossa.errors import BossaError
from fuzz.reader import Reader, Wrong, wrong_message

MEMORY = 1 << 30
"""Bytes that a process may hold, the libraries that it imports included; and what a case may ask for."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
STARTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "socket.connect",
    "socket.getaddrinfo",
    "pty.spawn",
)


class Watch:
    """Notes what a case does that no reader should: files written elsewhere, programs started, connections made."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in STARTS:
            self.seen.append(f"{event} {arguments[0]!a}"[:200])
        elif event == "open" and len(arguments) == 3 and isinstance(arguments[0], (str, bytes)):
            path, mode, flags = arguments
            writes = any(letter in mode for letter in "wxa+") if isinstance(mode, str) else bool(flags & WRITES)
            whole = os.path.realpath(os.fsdecode(path))
            if writes and not whole.startswith(self.root) and whole != os.devnull:
                self.seen.append(f"writes {whole!a}"[:200])


def place_of(trace: TracebackType | None) -> str:
    """The innermost line of bossa's, or of anybody's where it has none."""
    found = "?"
    ours = False
    while trace is not None:
        frame: FrameType = trace.tb_frame
        held = frame.f_code.co_filename
        if "/bossa/" in held or not ours:
            found = f"{held.rpartition('/bossa/')[2]}:{trace.tb_lineno}"
        ours = ours or "/bossa/" in held
        trace = trace.tb_next
    return found


def run_case(reader: Reader, data: bytes, folder: Path, watch: Watch) -> dict[str, Any]:
    """What became of one input: ``right``, ``refused`` or ``finding``, with what and where."""
    outcome, what, place = "right", "", ""
    watch.seen.clear()
    watch.on = True
    try:
        reader.read(data, folder)
    except BossaError as error:
        outcome, place = "refused", place_of(error.__traceback__)
        what = type(error).__name__
        reason = wrong_message(str(error))
        if reason is not None:
            outcome, what = "finding", f"{type(error).__name__}: {reason}: {str(error)[:300]!a}"
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                outcome, what = "finding", f"more memory than {MEMORY:,} bytes was asked for: {str(error)[:200]!a}"
            cause = cause.__cause__ or cause.__context__
    except Wrong as error:
        outcome, what, place = "finding", str(error), "an answer"
    except BaseException as error:
        outcome, place = "finding", place_of(error.__traceback__)
        what = f"{type(error).__name__}: {str(error)[:200]!a}"
    finally:
        watch.on = False
    if watch.seen:
        outcome, what = "finding", watch.seen[0]
    return {"outcome": outcome, "what": what, "place": place}
