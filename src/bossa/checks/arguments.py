"""Arguments of the Python interface, each refused in one line that says what it must be and what it is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any, NoReturn

from bossa.checks.shown import shown
from bossa.errors import RequestError

LONGEST_SHOWN = 60


def refuse(name: str, expected: str, value: object) -> NoReturn:
    """Raise the error that says what ``name`` must be."""
    text = shown(repr(value) if not isinstance(value, int) or abs(value) < 10**LONGEST_SHOWN else "a huge number")
    if len(text) > LONGEST_SHOWN:
        text = text[: LONGEST_SHOWN - 1] + "…"
    raise RequestError(f"{name} must be {expected}, and is {text}")


def is_whole(value: object) -> bool:
    """Whether it is a whole number, Python's or NumPy's, and not a truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def whole(name: str, value: object, low: int | None = None, high: int | None = None, *, expected: str = "") -> int:
    """A whole number from ``low`` to ``high``.

    Raises:
        RequestError: it is none; ``expected`` says what is wanted, where the range alone does not.
    """
    if not is_whole(value) or (low is not None and value < low) or (high is not None and value > high):  # type: ignore[operator]  # is_whole
        refuse(name, expected or _range("a whole number", low, high), value)
    return int(value)  # type: ignore[call-overload, no-any-return]  # a whole number


def real(name: str, value: object, low: float, high: float | None = None, *, expected: str = "") -> float:
    """A finite number from ``low`` to ``high`` that a float can hold.

    Raises:
        RequestError: it is none.
    """
    number = float("nan")
    if not isinstance(value, bool) and isinstance(value, Real):
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
    if not isfinite(number) or number < low or (high is not None and number > high):
        refuse(name, expected or _range("a number", low, high), value)
    return number


def boolean(name: str, value: object) -> bool:
    """True or False, and nothing that only counts as one of them.

    Raises:
        RequestError: it is neither.
    """
    if not isinstance(value, bool):
        refuse(name, "True or False", value)
    return value


def text(name: str, value: object) -> str:
    """A text that is not empty.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(value, str) or not value:
        refuse(name, "a text that is not empty", value)
    return value


def texts(name: str, value: object) -> tuple[str, ...]:
    """Texts that are not empty: one, or several in a list or tuple.

    Raises:
        RequestError: it is neither.
    """
    if isinstance(value, str):
        return (text(name, value),)
    if not isinstance(value, Sequence) or not all(isinstance(item, str) and item for item in value):
        refuse(name, "a text, or a list of texts that are not empty", value)
    return tuple(value)


def token_ids(name: str, value: object) -> list[int]:
    """Token ids: whole numbers in a sequence or an array of one axis.

    Raises:
        RequestError: they are something else, text among it.
    """
    wanted = "a list of token ids (whole numbers from 0)"
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        refuse(name, wanted, value)
    items: list[Any] = list(value)
    if not all(map(is_whole, items)):
        refuse(name, wanted, next(item for item in items if not is_whole(item)))
    return [int(item) for item in items]


def path(name: str, value: object) -> str:
    """A path as text.

    Raises:
        RequestError: it is no path, is empty, or holds a NUL.
    """
    if not isinstance(value, str | os.PathLike):
        refuse(name, "a path", value)
    found = os.fspath(value)
    if not isinstance(found, str) or not found or "\0" in found:
        refuse(name, "a path", value)
    return found


def choice(name: str, value: object, choices: Sequence[str]) -> str:
    """One of ``choices``.

    Raises:
        RequestError: it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        refuse(name, "one of " + ", ".join(choices), value)
    return value


def _range(kind: str, low: float | None, high: float | None) -> str:
    if low is None:
        return kind
    return f"{kind} from {low}" if high is None else f"{kind} from {low} to {high}"
