"""What quantizers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from bossa.formats.format import F32
else:
    from bossa.formats.lazy import np

SMALLEST = 1e-30
"""Rows with no number larger than this are stored as zeros: the inverse of their scale could not be relied on."""


def scale_of(most: F32, levels: int = 255) -> tuple[F32, F32]:
    """The scale at which ``most`` is the level ``levels``, and its inverse; zeros where that is too small."""
    count = np.float32(levels)
    some = most >= SMALLEST
    return (
        np.where(some, most / count, np.float32(0)),
        np.where(some, count / np.where(some, most, np.float32(1)), np.float32(0)),
    )
