"""Records with prompts, read one at a time from JSON, JSON Lines, directories of them, gzip or standard input.

A record that cannot be used comes as a ``BadRecord`` in its place, and reading goes on after it.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from bossa.dataset.json_text import is_deep, parse
from bossa.errors import DatasetError

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
LONGEST_LINE = 64 * 2**20
"""Bytes that a line of JSON Lines may have: a bound on the memory of reading."""

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_DEEP = 200  # brackets, from which a record is tried for whether it can be written again
_DOCUMENT = re.compile(rb"\s*(\[|\{[ \t\r]*\n)")
_MARKS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}\n]|[^\s,\[\]{}":]+')


@dataclass(frozen=True)
class Record:
    """A usable record.

    Attributes:
        index: its place among all records, good and bad, from 0.
        file: the file it came from, ``-`` for standard input.
        line: the line in the file on which it begins, from 1.
        fields: the whole record.
        prompt: its field ``prompt``.
    """

    index: int
    file: str
    line: int
    fields: dict[str, Any]
    prompt: str


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be used, and why. ``fields`` is empty where it is not an object."""

    index: int
    file: str
    line: int
    reason: str
    fields: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


@dataclass(frozen=True)
class _Value:
    """A JSON value on its line, or why there is none."""

    line: int
    value: object = None
    reason: str | None = None


def read_records(path: str) -> Iterator[Record | BadRecord]:
    """The records of a ``.json`` or ``.jsonl`` file, of a directory's, sorted by name, or of standard input (``-``).

    A file holds one object, a list of them, or an object a line, whichever of the two its name says; each may be
    ``.gz``. Standard input and pipes may be any of these, gzipped or not. JSON Lines are read as they come, but a
    ``.json`` file and a list are read whole.

    Raises:
        DatasetError: at once when there is nothing to read, later when a file cannot be read any more.
    """
    return _records(path, _files(path))


def _files(path: str) -> list[str]:
    if path == "-":
        return [path]
    place = Path(path)
    if place.is_dir():
        files = sorted(entry for entry in _entries(place) if entry.name.endswith(SUFFIXES))
        names = [str(entry) for entry in files if not entry.name.startswith(".") and entry.is_file()]
        if not names:
            raise DatasetError(f"{path} has no prompts: a directory must hold {', '.join(SUFFIXES)} files")
        return names
    if not place.exists():
        raise DatasetError(f"no such file or directory: {path}")
    if place.is_file() and not path.endswith(SUFFIXES):
        raise DatasetError(f"{path} is not a kind of file that prompts are read from: {', '.join(SUFFIXES)}")
    return [path]


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError as error:
        raise DatasetError(f"cannot read {directory}: {error.strerror}") from error


def _records(path: str, files: list[str]) -> Iterator[Record | BadRecord]:
    index = count()
    for file in files:
        for item in _values(file):
            yield _record(next(index), file, item)


def _record(index: int, file: str, item: _Value) -> Record | BadRecord:
    if item.reason is not None:
        return BadRecord(index, file, item.line, item.reason)
    fields = item.value
    if not isinstance(fields, dict):
        return BadRecord(index, file, item.line, f"not a JSON object but {_kind(fields)}")
    prompt = fields.get("prompt")
    if "prompt" not in fields:
        reason = 'the record has no "prompt"'
    elif not isinstance(prompt, str):
        reason = f'the "prompt" is not a string but {_kind(prompt)}'
    elif not prompt:
        reason = 'the "prompt" is empty'
    else:
        return Record(index, file, item.line, fields, prompt)
    return BadRecord(index, file, item.line, reason, fields)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return kinds.get(type(value), "an object")


def _values(file: str) -> Iterator[_Value]:
    """The JSON values of one file, with what is damaged in their place."""
    line = 0
    try:
        with ExitStack() as opened:
            stream = _unpacked(sys.stdin.buffer if file == "-" else opened.enter_context(Path(file).open("rb")))
            if _is_document(file, stream):
                yield from _document(stream.read())
                return
            for item in _lines(stream):
                line = item.line
                yield item
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield _Value(line + 1, reason=f"the gzip file is damaged from here on: {error}")
    except OSError as error:
        raise DatasetError(f"cannot read {file}: {error.strerror or error}") from error


def _unpacked(raw: BinaryIO) -> io.BufferedReader:
    # Files and standard input are buffered readers, which typeshed leaves open; a GzipFile reads as a raw one does.
    stream = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    if stream.peek(2)[:2] != _GZIP:
        return stream
    return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stream)))


def _is_document(file: str, stream: io.BufferedReader) -> bool:
    """Whether it may be one JSON text rather than a value a line: by its name, or by how it begins."""
    if file.removesuffix(".gz").endswith(".json"):
        return True
    return _DOCUMENT.match(stream.peek(1).removeprefix(_BOM)) is not None


def _lines(stream: BinaryIO) -> Iterator[_Value]:
    for line in count(1):
        data = stream.readline(LONGEST_LINE + 1)
        if not data:
            return
        if len(data) > LONGEST_LINE:
            while data and not data.endswith(b"\n"):
                data = stream.readline(LONGEST_LINE)
            yield _Value(line, reason=f"the line is longer than {LONGEST_LINE} bytes")
            continue
        if line == 1:
            data = data.removeprefix(_BOM)
        if data.strip():
            item = _parse(data, line)
            yield item if _is_shallow(data) else _writable(item)


def _parse(data: bytes, line: int) -> _Value:
    """The JSON value in ``data``, which begins on ``line``."""
    try:
        return _Value(line, parse(data.rstrip()))
    except orjson.JSONDecodeError as error:
        return _not_json(data, line, error)


def _is_shallow(data: bytes) -> bool:
    return data.count(b"[") + data.count(b"{") <= _DEEP


def _writable(item: _Value) -> _Value:
    """The same, unless it is nested so deeply that it could not be written to the predictions."""
    return _Value(item.line, reason="the record is nested too deeply") if is_deep(item.value) else item


def _not_json(data: bytes, line: int, error: orjson.JSONDecodeError) -> _Value:
    try:
        data.decode()
    except UnicodeDecodeError as wrong:
        line += data.count(b"\n", 0, wrong.start)
        at = wrong.start - data.rfind(b"\n", 0, wrong.start)
        return _Value(line, reason=f"not UTF-8: byte {at} of the line is 0x{data[wrong.start]:02x}")
    return _Value(line + error.lineno - 1, reason=f"not JSON: {error.msg} (column {error.colno})")


def _document(data: bytes) -> Iterator[_Value]:
    data = data.removeprefix(_BOM)
    if not data.strip():
        yield _Value(1, reason="the file is empty")
        return
    whole = _parse(data, 1)
    if whole.reason is not None:
        yield from _lines(io.BytesIO(data)) if _holds_lines(data) else [whole]
    elif isinstance(whole.value, list):
        for value, line in zip(whole.value, _element_lines(data), strict=True):
            yield _writable(_Value(line, value))
    else:
        yield _writable(_Value(1 + data[: len(data) - len(data.lstrip())].count(b"\n"), whole.value))


def _holds_lines(data: bytes) -> bool:
    """Whether ``data``, which is not one JSON text, is a value a line: its first lines show it."""
    lines = (line.strip() for line in io.BytesIO(data))
    first, second, *_ = [*islice((line for line in lines if line), 2), b"", b""]
    if not second:
        return False
    return (first.startswith(b"{") and second.startswith(b"{")) or _parse(first, 1).reason is None


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
