"""Checkpoints in memory."""

from __future__ import annotations

import pytest

from support.arrays import Arrays


@pytest.fixture
def checkpoint() -> type[Arrays]:
    """Makes a checkpoint in memory of a mapping from names to arrays."""
    return Arrays
