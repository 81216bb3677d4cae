"""All that the commands write: plain text for people, in which nothing acts on a terminal, and what is exact."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bossa.errors import shown
from bossa.host import streams

CLEAR = "\r\x1b[2K"
"""What takes away the line that a terminal's cursor is on."""


def say(text: object, *, lines: bool = False) -> None:
    """A line for a person on standard error; several with ``lines``."""
    print(shown(text, lines=lines), file=sys.stderr, flush=True)


def redraw(text: str = "") -> None:
    """Write over the line that the cursor is on, and stay there; where standard error is a terminal."""
    if sys.stderr.isatty():
        print(CLEAR + shown(text), end="", file=sys.stderr, flush=True)


def show(text: str, *, exact: bool = False) -> None:
    """Text for a person on standard output, in whole lines; to anything but a terminal as it is, if ``exact``.

    Raises:
        StreamError: standard output was closed.
    """
    if not exact or sys.stdout.isatty():
        text = shown(text, lines=True)
    put(text if text.endswith("\n") else text + "\n")


def put(text: str) -> None:
    """Text on standard output as it is, at once.

    Raises:
        StreamError: standard output was closed.
    """
    streams.need(1)
    sys.stdout.write(text)
    sys.stdout.flush()


def table(rows: Sequence[tuple[str, ...]], indent: int = 0) -> str:
    """The rows with their columns aligned."""
    if not rows:
        return " " * indent + "none"
    rows = [tuple(map(shown, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(" " * indent + line for line in lines)


def size(count: int) -> str:
    """A number of bytes, in powers of 1000."""
    if count < 1000:
        return f"{count} B"
    scaled, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if scaled < 999.95:
            break
        scaled, unit = scaled / 1000, larger
    return f"{scaled:.1f} {unit}"
