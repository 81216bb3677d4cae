"""The ids that a tokenizer's files may give out, looked up before the tokenizers library sees them.

The library writes a tokenizer out by going through all ids from 0, and notes those that have no token: one far away
token asks for gigabytes, and what cannot be had ends the process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bossa.errors import TokenizerError, counted

LARGEST_ID = 10**7 - 1
"""The largest vocabularies have some million tokens. All that is larger has eight digits or more."""
_ALIKE = bytes.maketrans(b"123456789[, \t\r\n", b"000000000::::::")
_LONG_NUMBER = re.compile(rb":0{8}")
_NEAR = 32
"""Bytes before a number in which a comma, colon or bracket is looked for; without one it is taken for a value."""


def check_ids(data: bytes, where: str) -> None:
    """Refuses a ``tokenizer.json`` or ``vocab.json`` with an id that no tokenizer has; no file is refused as damaged.

    Raises:
        TokenizerError: it has one.
    """
    if not _has_long_number(data):
        return  # seen at once, where parsing takes as long as loading
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return
    worst = far_id(content)
    if worst is not None:
        token, number = worst
        raise TokenizerError(
            f"{where}: gives the token {token[:40]!a} the id {counted(number)}, and {LARGEST_ID:,} is the most: fetch"
            " the tokenizer again"
        )


def _has_long_number(data: bytes) -> bool:
    """Whether a number of eight digits may follow a comma, colon or bracket; digits after a letter are in a text."""
    for found in _LONG_NUMBER.finditer(data.translate(_ALIKE)):
        before = data[max(0, found.start() - _NEAR) : found.start() + 1].rstrip()
        if not before or before[-1:] in b",:[":
            return True
    return False


def far_id(content: Any) -> tuple[str, float] | None:
    """A token with an id that is too large, of what a file says; None where there is none."""
    found = ((str(token), number) for token, number in _ids(content) if isinstance(number, int))
    return next(((token, _float(number)) for token, number in found if number > LARGEST_ID), None)


def _ids(content: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(content, Mapping):
        return
    model = content.get("model")
    if not isinstance(model, Mapping):  # a vocab.json
        yield from content.items()
        return
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, Mapping):
        yield from vocabulary.items()
    added = content.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, Mapping):
            yield token.get("content"), token.get("id")
    yield from (("", number) for number in _numbers(content.get("post_processor")))


def _numbers(value: Any) -> Iterator[Any]:
    """All numbers in a value; they are ids where it is a post-processor."""
    parts: Iterable[Any] = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for part in parts:
        yield from _numbers(part)
    if isinstance(value, int):
        yield value


def _float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf")
