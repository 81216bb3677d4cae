"""The seed of everything random in a program."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from bossa.errors import SambaError

_ENVIRONMENT = "SAMBA_SEED"

_set: int | None = None


def set_seed(seed: int | None = None) -> None:
    """Seed Python's, NumPy's and torch's generators, and the dropout of sessions.

    Args:
        seed: Of any size; without one, the value of ``SAMBA_SEED``, or 0.
    """
    global _set
    _set = _from_environment() if seed is None else int(seed)
    random.seed(_set)
    np.random.seed(_set % 2**32)
    torch.manual_seed(_set)


def seed_from_environment() -> None:
    """Seed everything with ``SAMBA_SEED`` where it is set: at import, before the program can set a seed of its own."""
    if _ENVIRONMENT in os.environ:
        set_seed()


def current_seed() -> int:
    """The seed that the program set, else the value of ``SAMBA_SEED``, else 0."""
    return _from_environment() if _set is None else _set


def _from_environment() -> int:
    text = os.environ.get(_ENVIRONMENT, "0")
    try:
        return int(text)
    except ValueError:
        raise SambaError(f"{_ENVIRONMENT}={text}: not a whole number") from None
