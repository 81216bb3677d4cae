"""Where JSON values end, found line by line and one after the other; and where one breaks, at the first wrong token."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto

from bossa.dataset.json_text import DEEPEST

_TOKEN = re.compile(
    rb'[ \t\r\n]*+(?:("(?:[^"\\\x00-\x1f]++|\\.)*+")|([][{}:,])|(?:true|false|null|NaN|-?Infinity|-?[0-9][0-9.eE+-]*+))'
)

_BETWEEN = re.compile(rb"[ \t\r\n,]*+")
_IN_LIST = re.compile(rb"[ \t\r\n,\]]*+")
_DAMAGED = re.compile(rb'"(?:[^"\\\n]++|\\.)*+"?|[][{}]|[^]["{}]++')
_LINE_START = re.compile(rb"\n([ \t]*+)\{")
RETRIES = 8
"""Elements of a list without an end that are passed over, to look for others in what follows."""


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
        self.end = 0
        """Where in the last line the value ended, or broke."""

    def add(self, line: bytes) -> State:
        """Take the next line; nothing may come after a line that did not leave the value open."""
        return self.scan(line, 0, len(line.rstrip()))

    def scan(self, data: bytes, start: int, end: int) -> State:
        """Take what is between two places, up to the end of the value if it is there."""
        self.end = start
        while self.end < end:
            token = _TOKEN.match(data, self.end, end)
            if token is None or not self._take(token[1] is not None, token[2] or b""):
                return State.BROKEN
            self.end = token.end()
            if self._next is _Next.NOTHING:
                return State.WHOLE
        return State.OPEN

    @property
    def depth(self) -> int:
        """The lists and objects that are open."""
        return len(self._open)

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


def values_in(data: bytes, start: int = 0, is_list: bool = False) -> Iterator[tuple[State, int, int]]:
    """What stands in ``data`` one after the other, with commas and white space between: where it begins and ends.

    Each is a value, what is damaged, up to where another value is likely to begin, or at the end one that goes on.
    It takes time in step with the length: all but a few ends that never came is looked at once.
    """
    between = _IN_LIST if is_list else _BETWEEN
    end = len(data.rstrip())
    at, line, retries = _past(between, data, start), 0, RETRIES
    while at < end:
        line = max(line, data.rfind(b"\n", start, at) + 1)
        indent = at - line if not data[line:at].strip() else 0
        value = Document()
        state, start = value.scan(data, at, end), at
        after = value.end
        if state is State.BROKEN:
            after = _after_damage(data, at, value, indent, end)
        elif state is State.OPEN and is_list and retries:
            retries -= 1
            state, after = State.BROKEN, _at_line_start(data, at, indent, end)
        yield state, at, after
        at = _past(between, data, after)


def _after_damage(data: bytes, start: int, broken: Document, indent: int, end: int) -> int:
    """Where to go on after damage: at the next object that is not inside of the broken value, as its brackets show, or
    that begins a line as far to the left as the broken one does."""
    at, depth = broken.end, broken.depth
    if depth <= 2 * DEEPEST and data[at - 1 : at] == b",":  # the broken one was cut short before this object
        following = _past(_BETWEEN, data, at)
        if data[following : following + 1] == b"{":
            return following
    while at < end:
        if depth <= 0 and at > start and data[at : at + 1] == b"{":
            return at
        token = _DAMAGED.match(data, at, end)
        assert token is not None  # it matches any letter
        text = token[0]
        if text in (b"{", b"["):
            depth += 1
        elif text in (b"}", b"]"):
            depth -= 1
        at = token.end()
        begins = data.rfind(b"\n", token.start(), at) + 1
        if begins and data[at : at + 1] == b"{" and at - begins <= indent and not data[begins:at].strip():
            return at
    return end


def _at_line_start(data: bytes, start: int, indent: int, end: int) -> int:
    """The next object that begins a line, not further to the right than ``indent``."""
    return next((m.end() - 1 for m in _LINE_START.finditer(data, start, end) if len(m[1]) <= indent), end)


def _past(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    found = pattern.match(data, at)
    return found.end() if found is not None else at
