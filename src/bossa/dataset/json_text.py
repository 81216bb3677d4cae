"""JSON as Python writes it, at orjson's speed where a record has nothing that only Python reads and writes.

Whole numbers of any size, NaN and Infinity come out as they went in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

DEEPEST = 250
"""Lists and objects inside each other that can be written to the predictions."""

_LONG = re.compile(rb"[0-9]{19}")  # a whole number of which orjson could make a float
_NO_NUMBER = re.compile(rb"NaN|Infinity")


def parse(data: bytes) -> object:
    """The value that ``data`` holds.

    Raises:
        orjson.JSONDecodeError: it is not JSON, or has a number or text that cannot be written again.
    """
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        if not (_NO_NUMBER.search(data) or _LONG.search(data)):
            raise
        try:
            return _by_python(data)
        except (ValueError, RecursionError):
            pass
        raise
    if not _LONG.search(data):
        return value
    try:
        return _by_python(data)
    except RecursionError:
        return value  # too deep to be written in any case
    except ValueError as error:
        raise orjson.JSONDecodeError(str(error).partition(";")[0], "", 0) from None


def dump(fields: Mapping[str, Any]) -> bytes:
    """One line of JSON."""
    try:
        line = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a whole number over 64 bits
        return _line(fields)
    if b"null" in line:  # which orjson also writes for NaN and Infinity
        try:
            json.dumps(fields, allow_nan=False)
        except ValueError:
            return _line(fields)
    return line


def is_deep(value: object) -> bool:
    """Whether a value is nested too deeply to be written."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _by_python(data: bytes) -> object:
    value: object = json.loads(data)
    json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is refused here
    return value


def _line(fields: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write as an escape alone
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"
