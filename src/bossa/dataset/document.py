"""Where a JSON value of several lines ends, found line by line; and where it breaks, at the first wrong token."""

from __future__ import annotations

import re
from enum import Enum, auto

from bossa.dataset.json_text import DEEPEST

_TOKEN = re.compile(
    rb'[ \t\r\n]*+(?:("(?:[^"\\\x00-\x1f]++|\\.)*+")|([][{}:,])|(?:true|false|null|NaN|-?Infinity|-?[0-9][0-9.eE+-]*+))'
)


class State(Enum):
    """Of the lines so far: the value goes on, is whole, or cannot be one."""

    OPEN = auto()
    WHOLE = auto()
    BROKEN = auto()


class _Next(Enum):
    """What the grammar allows next."""

    VALUE = auto()
    VALUE_OR_END = auto()
    KEY = auto()
    KEY_OR_END = auto()
    COLON = auto()
    COMMA_OR_END = auto()
    NOTHING = auto()


class Document:
    """A value of which a line comes after the other. Only its structure is looked at: its tokens and brackets."""

    def __init__(self) -> None:
        self._open = bytearray()  # the brackets that are not closed
        self._next = _Next.VALUE

    def add(self, line: bytes) -> State:
        """Take the next line; nothing may come after a line that did not leave the value open."""
        end = len(line.rstrip())
        at = 0
        while at < end:
            token = _TOKEN.match(line, at, end)
            if token is None or not self._take(token[1] is not None, token[2] or b""):
                return State.BROKEN
            at = token.end()
        return State.WHOLE if self._next is _Next.NOTHING else State.OPEN

    def _take(self, is_text: bool, mark: bytes) -> bool:
        """Whether the token may stand here: a text, a mark, or else a number or a word."""
        allowed = self._next
        if mark == b":":
            self._next = _Next.VALUE
            return allowed is _Next.COLON
        if mark == b",":
            self._next = _Next.KEY if self._open[-1:] == b"{" else _Next.VALUE
            return allowed is _Next.COMMA_OR_END
        if mark in (b"}", b"]"):
            return self._close(mark, allowed)
        if allowed in (_Next.KEY, _Next.KEY_OR_END):
            self._next = _Next.COLON
            return is_text
        if allowed not in (_Next.VALUE, _Next.VALUE_OR_END):
            return False
        if mark:
            self._open += mark
            self._next = _Next.KEY_OR_END if mark == b"{" else _Next.VALUE_OR_END
            return len(self._open) <= 2 * DEEPEST
        self._end_value()
        return True

    def _close(self, mark: bytes, allowed: _Next) -> bool:
        opened = bytes(self._open[-1:])
        if allowed not in (_Next.COMMA_OR_END, _Next.VALUE_OR_END if mark == b"]" else _Next.KEY_OR_END):
            return False
        if opened != (b"[" if mark == b"]" else b"{"):
            return False
        del self._open[-1:]
        self._end_value()
        return True

    def _end_value(self) -> None:
        self._next = _Next.COMMA_OR_END if self._open else _Next.NOTHING
