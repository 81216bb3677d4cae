"""Plain text for people: tables and sizes."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[tuple[str, ...]], indent: int = 0) -> str:
    """The rows with their columns aligned."""
    if not rows:
        return " " * indent + "none"
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
