"""Typed reads from untrusted JSON: each returns a value of the right type and range, or raises PefError."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from bossa.errors import PefError

LARGEST = 2**63 - 1
MOST_VALUES = 1 << 20
"""Commas and brackets of a JSON text, so that what is made of it takes a few hundred megabytes at the very most."""
DEEPEST = 16
"""Lists and objects inside each other, in additions that this Bossa does not know."""
HEX = re.compile(r"[0-9a-f]{64}\Z")


def parse(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in ``data``.

    Raises:
        PefError: it is not UTF-8 JSON, not an object, nested too deeply, too large, has a key twice, or holds NaN.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise PefError(f"{what} holds more than {MOST_VALUES:,} values: compile the model again")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise PefError(f"{what} is not valid JSON ({reason}): compile the model again") from None
    if not isinstance(value, dict):
        raise PefError(f"{what} is not a JSON object: compile the model again")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is there twice")
    return result


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlevel = 3


class Fields:
    """One JSON object being read; ``path`` says where it is, for messages."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise PefError(f"{path} should be a JSON object: compile the model again")
        self.value: Mapping[str, Any] = value
        self.path = path

    def refuse(self, key: str, expected: str) -> NoReturn:
        shown = _SHORT.repr(self.value[key])[:60] if key in self.value else "missing"
        raise PefError(f"{self.path}: {key} should be {expected}, not {shown}: compile the model again")

    def additions(self, known: Collection[str]) -> dict[str, Any]:
        """The keys that this Bossa does not know, and their values, none of them nested deeply."""
        found = {key: value for key, value in self.value.items() if key not in known}
        level: list[Any] = list(found.values())
        for _ in range(DEEPEST):
            inner = [value.values() if isinstance(value, Mapping) else value for value in level if _holds(value)]
            level = [value for values in inner for value in values]
        if level:
            raise PefError(f"{self.path}: {sorted(found)[0]!r} is nested too deeply: compile the model again")
        return found

    def integer(self, key: str, low: int = 0, high: int = LARGEST) -> int:
        value = self.value.get(key)
        if type(value) is not int or not low <= value <= high:
            self.refuse(key, f"a whole number from {low} to {high}")
        return value

    def text(self, key: str, *, empty: bool = False, limit: int = 1 << 24) -> str:
        value = self.value.get(key)
        if not _is_text(value, limit) or (not value and not empty):
            self.refuse(key, "text")
        assert isinstance(value, str)
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.value.get(key)
        if not isinstance(value, str) or value not in choices:
            self.refuse(key, "one of " + ", ".join(choices))
        return value

    def boolean(self, key: str) -> bool:
        value = self.value.get(key)
        if not isinstance(value, bool):
            self.refuse(key, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.items(key)
        if not all(_is_text(value, 1 << 16) for value in values):
            self.refuse(key, "a list of texts")
        return tuple(values)

    def shape(self, key: str) -> tuple[int, ...]:
        values = self.items(key)
        if len(values) > 8 or not all(type(value) is int and 0 <= value <= LARGEST for value in values):
            self.refuse(key, "a list of at most 8 whole numbers")
        return tuple(values)

    def items(self, key: str) -> list[Any]:
        value = self.value.get(key)
        if not isinstance(value, list | tuple):
            self.refuse(key, "a list")
        return list(value)

    def digest(self, key: str) -> str:
        value = self.value.get(key)
        if not isinstance(value, str) or not HEX.match(value):
            self.refuse(key, "64 hexadecimal digits")
        return value

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.value.get(key)
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            self.refuse(key, "a JSON object")
        return value


def _holds(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _is_text(value: Any, limit: int) -> bool:
    if not isinstance(value, str) or len(value) > limit:
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
