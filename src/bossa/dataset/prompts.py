"""Records with prompts, read one at a time from JSON, JSON Lines, directories of them, gzip or standard input.

A record that cannot be used comes as a ``BadRecord`` in its place, and reading goes on after it.
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from bossa.errors import DatasetError, readable

if TYPE_CHECKING:
    from bossa.dataset.values import Value

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Record:
    """A usable record.

    Attributes:
        index: its place among all records, good and bad, from 0.
        file: the file it came from, ``-`` for standard input.
        line: the line in the file on which it begins, from 1.
        fields: the whole record.
        prompt: its field ``prompt``; empty where it has none, and ``messages``.
        messages: its field ``messages``, a conversation that the chat template makes the prompt of; None where it has
            a ``prompt``.
        tools: its field ``tools`` beside them, JSON schemas of what the model may call, for the chat template.
    """

    index: int
    file: str
    line: int
    fields: dict[str, Any]
    prompt: str
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None


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


def read_records(path: str, prompt_field: str = "prompt") -> Iterator[Record | BadRecord]:
    """The records of a ``.json`` or ``.jsonl`` file, of a directory's, sorted by name, or of standard input (``-``).

    A file holds objects one after the other, each on a line or on several, or a list of them, whichever of the two its
    name says; each may be ``.gz``. Standard input and pipes may be any of these, gzipped or not. They are read as they
    come, but a ``.json`` file and a list are read whole.

    Args:
        prompt_field: the field that holds a record's prompt.

    Raises:
        DatasetError: at once when there is nothing to read, later when a file cannot be read any more.
    """
    return _records(files(path), prompt_field)


def files(path: str) -> list[str]:
    """The files whose records ``read_records`` reads; ``-`` for standard input.

    Raises:
        DatasetError: there are none.
    """
    if path == "-":
        return [path]
    if not path:
        raise DatasetError("the path of the prompts is empty: name a file or folder, or - for standard input")
    place = Path(path)
    try:
        place.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise DatasetError(f"no such file or directory: {path}") from None
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}: check the path and its permissions") from error
    if place.is_dir():
        entries = sorted(entry for entry in _entries(place) if entry.name.lower().endswith(SUFFIXES))
        names = [str(entry) for entry in entries if not entry.name.startswith(".") and entry.is_file()]
        if not names:
            raise DatasetError(f"{path} has no prompts: a directory must hold {', '.join(SUFFIXES)} files")
        return names
    if place.is_file() and not path.lower().endswith(SUFFIXES):
        raise DatasetError(f"{path} is not a kind of file that prompts are read from: {', '.join(SUFFIXES)}")
    return [path]


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError as error:
        raise DatasetError(f"cannot read {directory}: {error.strerror}") from error


def _records(names: list[str], prompt_field: str) -> Iterator[Record | BadRecord]:
    index = count()
    for file in names:
        name = readable(file)
        for item in values(file):
            yield _record(next(index), name, item, prompt_field)


def _record(index: int, file: str, item: Value, name: str) -> Record | BadRecord:
    if item.reason is not None:
        return BadRecord(index, file, item.line, item.reason)
    fields = item.value
    if not isinstance(fields, dict):
        return BadRecord(index, file, item.line, f"not a JSON object but {_kind(fields)}")
    prompt = fields.get(name)
    if prompt is None and "messages" in fields:
        return _conversation(index, file, item.line, fields)
    if name not in fields:
        reason = f'the record has no "{name}"'
    elif not isinstance(prompt, str):
        reason = f'the "{name}" is not a string but {_kind(prompt)}'
    elif not prompt:
        reason = f'the "{name}" is empty'
    else:
        return Record(index, file, item.line, fields, prompt)
    return BadRecord(index, file, item.line, reason, fields)


def _conversation(index: int, file: str, line: int, fields: dict[str, Any]) -> Record | BadRecord:
    """A record with ``messages``: objects with a role, and with content or the calls of tools in its place."""
    messages = fields["messages"]
    if not isinstance(messages, list):
        reason = f'the "messages" are not a list but {_kind(messages)}'
    elif not messages:
        reason = 'the "messages" are empty'
    else:
        reasons = (_wrong_message(number, message) for number, message in enumerate(messages, start=1))
        tools = fields.get("tools")
        first = next(filter(None, reasons), None) or _wrong_tools(tools)
        if first is None:
            return Record(index, file, line, fields, "", messages, tools or None)
        reason = first
    return BadRecord(index, file, line, reason, fields)


def _wrong_message(number: int, message: object) -> str | None:
    if not isinstance(message, dict):
        return f"message {number} is not an object but {_kind(message)}"
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        return f'message {number} has no "role"' if role is None else f'the "role" of message {number} is not a text'
    if isinstance(content, str | list) or (content is None and message.get("tool_calls")):
        return None
    if "content" not in message:
        return f'message {number} has no "content"'
    return f'the "content" of message {number} is not a text but {_kind(content)}'


def _wrong_tools(tools: object) -> str | None:
    if tools is None or (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        return None
    return f'the "tools" are not a list of objects but {_kind(tools)}{" of others" * isinstance(tools, list)}'


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return kinds.get(type(value), "an object")


def values(file: str) -> Iterator[Value]:
    """The JSON values of one file, with what is damaged in their place."""
    from bossa.dataset.values import Value, read_values  # a prompt of the command line needs no reader

    line = 0
    try:
        with ExitStack() as opened:
            stream = _unpacked(_open(file, opened))
            for item in read_values(stream, file.lower().removesuffix(".gz").endswith(".json")):
                line = item.line
                yield item
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Value(line + 1, reason=f"the gzip file is damaged from here on: {error}")
    except OSError as error:
        raise DatasetError(f"cannot read {file}: {error.strerror or error}") from error


def _open(file: str, opened: ExitStack) -> BinaryIO:
    if file != "-":
        return opened.enter_context(Path(file).open("rb"))
    try:
        number = sys.stdin.fileno()
    except (OSError, ValueError):
        return sys.stdin.buffer  # text in memory, in a test
    # Not the interpreter's own reader, which it could not close at its end while a thread waits in it.
    return opened.enter_context(open(number, "rb", closefd=False))


def _unpacked(raw: BinaryIO) -> io.BufferedReader:
    # Files and standard input are buffered readers, which typeshed leaves open; a GzipFile reads as a raw one does.
    stream = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    if stream.peek(2)[:2] != _GZIP:
        return stream
    return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stream)))
