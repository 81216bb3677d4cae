"""The JSON values of a file or stream, each with the line on which it begins: values a line, documents, or one list.

Lines are read as they come, and so are documents of several lines, one after the other. All else that is read at once
has a bound, so that input without an end is refused in a line.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

import orjson

from bossa.dataset.document import Document, State, values_in
from bossa.dataset.json_text import is_deep, parse

LONGEST_LINE = 64 << 20
"""Bytes that a line, or a document of several in a stream, may have: a bound on the memory of reading."""
CHUNK = 1 << 20
"""Bytes that a stream is asked for at a time."""
LARGEST_LIST = 1 << 30
"""Bytes of a file that is one JSON text."""
LARGEST_GAP = 256 << 20
"""Bytes without a line's end, or of empty lines, from which no more is read: there may be no end to them."""
DEEPEST_START = 10_000
"""Lists and objects inside each other, in the first bytes of a JSON text, from which no more of it is read."""

_BOM = b"\xef\xbb\xbf"
_DEEP = 200  # brackets, from which a record is tried for whether it can be written again
_MARKS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}\n]|[^\s,\[\]{}":]+')
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_WIDE = (
    (b"\xff\xfe\x00\x00", "UTF-32"), (b"\x00\x00\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"),
)  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A JSON value on its line, or why there is none."""

    line: int
    value: object = None
    reason: str | None = None


def read_values(stream: BinaryIO, is_document: bool) -> Iterator[Value]:
    """The values of a stream, with what is damaged in its place; ``is_document``: it is likely one JSON text."""
    if is_document:
        yield from _rest(_read(stream, CHUNK), stream)
    else:
        yield from _lines(stream)


def _read(stream: BinaryIO, most: int) -> bytes:
    """As much as there is, up to a limit: by pieces, since a stream asked for much sets aside all of it at once."""
    pieces = []
    while most > 0 and (piece := stream.read(min(most, CHUNK))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _rest(start: bytes, stream: BinaryIO, line: int = 1) -> Iterator[Value]:
    """The values of one JSON text that begins with ``start``; of one that goes down without an end no more is read."""
    if _is_endlessly_deep(start):
        yield Value(line, reason=f"nested more than {DEEPEST_START} deep: no more is read")
        return
    yield from _whole(start + _read(stream, LARGEST_LIST + 1 - len(start)), line)


def _is_endlessly_deep(start: bytes) -> bool:
    if start.count(b"[", 0, CHUNK) + start.count(b"{", 0, CHUNK) <= DEEPEST_START:
        return False
    depth = 0
    for mark in _BRACKETS.finditer(start, 0, CHUNK):
        depth += (mark[0] in (b"[", b"{")) - (mark[0] in (b"]", b"}"))
        if depth > DEEPEST_START:
            return True
    return False


def _whole(data: bytes, line: int = 1) -> Iterator[Value]:
    """The values of what is one JSON text, or looked like one; it begins on ``line``."""
    wide = _wide(data)
    if len(data) > LARGEST_LIST:
        yield Value(
            line, reason=f"the file is larger than {LARGEST_LIST} bytes: write it as JSON Lines, a record a line"
        )
        return
    if wide is not None:
        yield Value(line, reason=wide)
        return
    data = data.removeprefix(_BOM)
    if not data.strip():
        return
    whole = _parse(data, line)
    if whole.reason is not None:
        several = _lines(io.BytesIO(data), line, may_be_list=False) if _holds_lines(data) else None
        yield from _damaged_list(data, line, whole) if several is None else several
    elif isinstance(whole.value, list):
        for value, place in zip(whole.value, _element_lines(data), strict=True):
            yield _writable(Value(line + place - 1, value))
    else:
        yield _writable(Value(line + data[: len(data) - len(data.lstrip())].count(b"\n"), whole.value))


def _damaged_list(data: bytes, line: int, whole: Value) -> Iterator[Value]:
    """The elements of a list that is cut short or damaged, and the damage in its place; ``whole`` says what it is."""
    begin = len(data) - len(data.lstrip())
    if data[begin : begin + 1] != b"[":
        yield whole
        return
    told, seen, line_start = False, 0, 0
    for state, at, after in values_in(data, begin + 1, is_list=True):
        line += data.count(b"\n", seen, at)
        line_start = max(line_start, data.rfind(b"\n", seen, at) + 1)
        seen = at
        item = _parse(data[at:after], line, at - line_start)
        if state is not State.WHOLE and not told:
            item = whole
        told = told or item.reason is not None
        yield item if item.reason is not None else _writable(item)
    if not told:
        yield whole  # a comma or bracket is missing, or is one too many


def _holds_lines(data: bytes) -> bool:
    """Whether ``data``, which is not one JSON text, has several: its first lines show it."""
    lines = (line.strip() for line in io.BytesIO(data))
    first, second, *_ = [*islice((line for line in lines if line), 2), b"", b""]
    return first.startswith(b"{") or (bool(second) and _parse(first, 1).reason is None)


class _Lines:
    """The lines of a stream with their numbers; some may be given back, to be read again each by itself."""

    def __init__(self, stream: BinaryIO, first: int) -> None:
        self.stream = stream
        self._next = first
        self._again: deque[tuple[int, bytes]] = deque()
        self.alone = 0
        """The last line that is known to go on over no other."""

    def read(self) -> tuple[int, bytes]:
        """The number of a line and its bytes, of which there may be one too many; none at the end."""
        if self._again:
            return self._again.popleft()
        data = self.stream.readline(LONGEST_LINE + 1)
        self._next += bool(data)
        return self._next - 1, data

    def give_back(self, lines: list[tuple[int, bytes]]) -> None:
        self._again.extendleft(reversed(lines))

    def skip_line(self) -> bool:
        """Pass over the rest of a line that is too long; whether it ended."""
        left = LARGEST_GAP
        while left > 0:
            data = self.stream.readline(min(left, LONGEST_LINE))
            if not data or data.endswith(b"\n"):
                return True
            left -= len(data)
        return False


def _lines(stream: BinaryIO, first: int = 1, may_be_list: bool = True) -> Iterator[Value]:
    lines = _Lines(stream, first)
    empty = 0
    begun = False
    while True:
        number, data = lines.read()
        if not data:
            return
        if number == 1:
            wide = _wide(data)
            if wide is not None:
                yield Value(1, reason=wide)
                return
            data = data.removeprefix(_BOM)
        if not data.strip() and len(data) <= LONGEST_LINE:
            empty += len(data)
            if empty > LARGEST_GAP:
                yield Value(number, reason=f"there are only empty lines in {LARGEST_GAP} bytes: no more is read")
                return
            continue
        empty = 0
        if not begun and may_be_list and data.lstrip().startswith(b"["):
            yield from _rest(data, stream, number)
            return
        begun = True
        if len(data) > LONGEST_LINE:
            ended = data.endswith(b"\n") or lines.skip_line()
            more = "" if ended else ", and does not end: no more is read"
            yield Value(number, reason=f"the line is longer than {LONGEST_LINE} bytes{more}")
            if not ended:
                return
            continue
        item = _parse(data, number)
        if item.reason is None:
            yield item if _is_shallow(data) else _writable(item)
        elif not data.lstrip().startswith((b"{", b"[")):
            yield item
        else:
            yield from _several(lines, number, data, item)


def _several(lines: _Lines, number: int, data: bytes, alone: Value) -> Iterator[Value]:
    """The values of a line that is no single one, of which the last may go on over other lines."""
    begin = len(data) - len(data.lstrip())
    for state, at, after in values_in(data):
        item = alone if at == begin and state is not State.WHOLE else _parse(data[at:after], number, at)
        if state is State.OPEN and number > lines.alone:
            yield from _document(lines, number, data[at:], item)
        else:
            yield item if item.reason is not None else _writable(item)


def _document(lines: _Lines, first: int, data: bytes, alone: Value) -> Iterator[Value]:
    """The value that begins on the line ``first`` and goes on over others; where none does, what that line is alone."""
    document = Document()
    state = document.add(data)
    following: list[tuple[int, bytes]] = []
    size = len(data)
    while state is State.OPEN:
        number, line = lines.read()
        size += len(line)
        if line:
            following.append((number, line))
        if not line or size > LONGEST_LINE:
            break
        state = document.add(line)
    after = following[-1][1][document.end :] if state is State.WHOLE and following else b""
    text = b"".join([data, *(line for _, line in following)])
    whole = _parse(text[: len(text) - len(after)], first)
    if after.strip(b" \t\r\n,"):
        lines.give_back([(following[-1][0], after.lstrip(b" \t,"))])
    if state is State.WHOLE:
        yield _writable(whole) if whole.reason is None else whole
        return
    if _was_one(data, following, broken=state is State.BROKEN):
        yield whole
        if state is State.BROKEN:
            lines.give_back(following[-1:])
            _pass_over(lines)
        return
    yield alone
    lines.alone = following[-1][0] - (state is State.BROKEN) if following else first
    lines.give_back(following)


def _was_one(data: bytes, following: list[tuple[int, bytes]], broken: bool) -> bool:
    """Whether lines that are no value were meant as one: they went on from each other, and none is a record alone."""
    went_on = len(following) - broken
    if went_on < 1 and (data.strip() not in (b"{", b"[") or not following):
        return False
    return not any(isinstance(_parse(line, number).value, dict) for number, line in following)


def _pass_over(lines: _Lines) -> None:
    """Pass over what is left of a damaged document, up to a line that begins another."""
    while True:
        number, data = lines.read()
        if not data:
            return
        if data.startswith((b"{", b"[")):
            lines.give_back([(number, data)])
            return


def _parse(data: bytes, line: int, column: int = 0) -> Value:
    """The JSON value in ``data``, which begins on ``line``, after so many bytes of it."""
    try:
        return Value(line, parse(data.rstrip()))
    except orjson.JSONDecodeError as error:
        return _not_json(data, line, column, error)


def _is_shallow(data: bytes) -> bool:
    return data.count(b"[") + data.count(b"{") <= _DEEP


def _writable(item: Value) -> Value:
    """The same, unless it is nested so deeply that it could not be written to the predictions."""
    return Value(item.line, reason="the record is nested too deeply") if is_deep(item.value) else item


def _wide(data: bytes) -> str | None:
    """What to say of text in another encoding than UTF-8, where its first bytes show it."""
    name = next((name for mark, name in _WIDE if data.startswith(mark)), None)
    if name is None and len(data) > 1 and bool(data[0]) != bool(data[1]) and not data[0] * data[1]:
        name = "UTF-16"
    return name and f"the file is {name} and must be UTF-8: convert it, as with iconv -f {name} -t UTF-8"


def _not_json(data: bytes, line: int, column: int, error: orjson.JSONDecodeError) -> Value:
    try:
        data.decode()
    except UnicodeDecodeError as wrong:
        line += data.count(b"\n", 0, wrong.start)
        at = wrong.start - data.rfind(b"\n", 0, wrong.start)
        at += column * (b"\n" not in data[: wrong.start])
        return Value(line, reason=f"not UTF-8: byte {at} of the line is 0x{data[wrong.start]:02x}")
    return Value(
        line + error.lineno - 1, reason=f"not JSON: {error.msg} (column {error.colno + column * (error.lineno == 1)})"
    )


def _element_lines(data: bytes) -> Iterator[int]:
    """The line on which each element of the list that ``data`` holds begins. ``data`` is valid JSON."""
    depth, line = 0, 1
    for mark in _MARKS.finditer(data):
        text = mark.group()
        if text == b"\n":
            line += 1
        elif text in (b"]", b"}"):
            depth -= 1
        else:
            if depth == 1:
                yield line
            if text in (b"[", b"{"):
                depth += 1
