"""Logits processors that a caller wrote: what they give is checked, and what is wrong with it names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from bossa.checks.arguments import described
from bossa.errors import RequestError
from bossa.sampling.logits import Floats, LogitsProcessor


def checked(function: Callable[[list[int], Floats], Any]) -> LogitsProcessor:
    """The function, given a list of token ids and a row that are its own.

    Raises:
        RequestError: by the processor, where the function raises something, or gives what is no row of logits.
    """

    def process(tokens: Sequence[int], row: Floats) -> Floats:
        try:
            found = function(list(tokens), row)
        except Exception as error:
            raise RequestError(
                f"the logits processor {_name(function)} failed after {len(tokens)} tokens with"
                f" {type(error).__name__}: {_text(error)}"
            ) from error
        return _checked_row(found, row, function)

    return process


def _checked_row(found: object, given: Floats, function: object) -> Floats:
    """What a function gave, as a row like the one that it was given; a copy where it is another array."""
    size = len(given)
    if not isinstance(found, np.ndarray):
        _refuse(function, size, described(found))
    if found.shape != (size,):
        _refuse(function, size, f"an array of shape {list(found.shape)}")
    if found.dtype.kind != "f":
        _refuse(function, size, f"an array of {found.dtype}")
    with np.errstate(over="ignore"):
        row = given if found is given else found.astype(np.float32)
    best = row.max()
    if np.isnan(best) or best == np.inf:
        _refuse(function, size, "one with NaN or infinity in it")
    if best == -np.inf:
        _refuse(function, size, "one that leaves no token")
    return row


def _refuse(function: object, size: int, what: str) -> NoReturn:
    raise RequestError(
        f"the logits processor {_name(function)} must return a NumPy array of {size} floats, none of them NaN or"
        f" infinity and not all -infinity, and returned {what}"
    )


def _name(function: object) -> str:
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else f"of type {type(function).__qualname__}"


def _text(error: Exception) -> str:
    """What an exception says, however strange its class is."""
    try:
        return str(error)
    except Exception:
        return "with no text"
