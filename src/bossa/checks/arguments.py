"""Arguments of the Python interface, each refused in one line that says what it must be and what it is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from math import isfinite
from numbers import Integral, Real
from reprlib import Repr
from typing import Any, NoReturn

from bossa.errors import RequestError, shown

LONGEST_SHOWN = 60

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 2 * LONGEST_SHOWN


def refuse(name: str, expected: str, value: object) -> NoReturn:
    """Raise the error that says what ``name`` must be."""
    raise RequestError(f"{name} must be {expected}, and is {described(value)}")


def described(value: object) -> str:
    """A value as it is shown in a message: short and printable, however large or strange it is."""
    if is_whole(value) and abs(value) >= 10**LONGEST_SHOWN:  # type: ignore[arg-type]  # is_whole
        return "a huge number"  # Python refuses to write out the longest
    if isinstance(value, str):
        text = repr(value[: LONGEST_SHOWN + 1])
    else:
        try:
            text = _SHORT.repr(value)
        except Exception:  # its class is not ours
            text = f"an object of {type(value).__name__}"
    text = shown(text)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"


def plain(value: object, axes: int = 0) -> Any:
    """A number, or with ``axes`` a table of numbers, of NumPy or torch as Python's; anything else as it is."""
    try:
        return value.tolist() if getattr(value, "ndim", None) == axes else value  # type: ignore[attr-defined]
    except Exception:  # a tensor without values, for one
        return value


def is_whole(value: object) -> bool:
    """Whether it is a whole number, Python's or NumPy's, and not a truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def whole(name: str, value: object, low: int | None = None, high: int | None = None, *, expected: str = "") -> int:
    """A whole number from ``low`` to ``high``.

    Raises:
        RequestError: it is none; ``expected`` says what is wanted, where the range alone does not.
    """
    number: Any = plain(value)
    if not is_whole(number) or (low is not None and number < low) or (high is not None and number > high):
        refuse(name, expected or _range("a whole number", low, high), value)
    return int(number)


def real(name: str, value: object, low: float, high: float | None = None, *, expected: str = "") -> float:
    """A finite number from ``low`` to ``high`` that a float can hold.

    Raises:
        RequestError: it is none.
    """
    number = float("nan")
    value = plain(value)
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
    value = plain(value)
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
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not all(isinstance(item, str) and item for item in items):
        refuse(name, "texts that are not empty, one or a list of them", value)
    return tuple(items)


def token_ids(name: str, value: object, *, expected: str = "a list of token ids (whole numbers from 0)") -> list[int]:
    """Token ids: whole numbers in a sequence, an iterator, or an array of one axis, of NumPy or torch.

    Raises:
        RequestError: they are something else, text among it; ``expected`` says what else would do.
    """
    found: list[Any] = list(iterated(name, plain(value, axes=1), expected))
    if set(map(type, found)) <= {int}:
        return found
    found = [plain(item) for item in found]
    if not all(map(is_whole, found)):
        refuse(name, expected, next(item for item in found if not is_whole(item)))
    return [int(item) for item in found]


def iterated(name: str, value: object, expected: str) -> Iterator[Any]:
    """What goes over something with an order of its own: no text, bytes, dict or set.

    Raises:
        RequestError: it is none; ``expected`` says what it must be.
    """
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping | Set):
        refuse(name, expected, value)
    try:
        return iter(value)  # type: ignore[call-overload, no-any-return]  # TypeError where it cannot be
    except TypeError:
        refuse(name, expected, value)


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


def choice(name: str, value: object, choices: Sequence[str], *, expected: str = "") -> str:
    """One of ``choices``.

    Raises:
        RequestError: it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        refuse(name, expected or "one of " + ", ".join(choices), value)
    return value


def function(name: str, value: object) -> None:
    """Something that can be called, or None.

    Raises:
        RequestError: it is neither.
    """
    if value is not None and not callable(value):
        refuse(name, "a function", value)


def _range(kind: str, low: float | None, high: float | None) -> str:
    if low is None:
        return kind
    return f"{kind} from {low}" if high is None else f"{kind} from {low} to {high}"
