"""Records of every kind of input, one at a time: pairs of prompt and completion, conversations, or plain text."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bossa.dataset.prompts import values
from bossa.errors import DatasetError, readable, shown
from bossa.prepare.packages import need
from bossa.prepare.settings import Settings

SUFFIXES = (
    *(".json", ".jsonl", ".json.gz", ".jsonl.gz"),
    *(".txt", ".txt.gz", ".parquet"),
)
ROWS = 1024
"""Rows of a Parquet file that are in memory at once."""


class Pair(NamedTuple):
    """A prompt and what should follow it."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Item:
    """A record that can be used, or the reason why not.

    Attributes:
        file: its place among the inputs' files.
        line: the line on which it begins, from 1; of a Parquet file, the row.
        pairs: what it consists of, one behind the other; of plain text, a completion alone.
        messages: a conversation instead, and the ``tools`` of it.
        category: its place among the categories, where there are any.
        value: the record itself, for a split that stays text.
    """

    file: int
    line: int
    pairs: tuple[Pair, ...] = ()
    messages: tuple[dict[str, Any], ...] = ()
    tools: list[Any] | None = None
    category: int = -1
    value: Any = None
    reason: str | None = None


def input_files(paths: Sequence[str]) -> list[str]:
    """The files of some paths: folders stand for what is in them, at any depth, by name; ``-`` is standard input.

    Raises:
        DatasetError: there is no such file, none of its kind, or nothing to read.
    """
    found: list[str] = []
    for path in paths:
        place = Path(path)
        if path == "-":
            found.append(path)
        elif place.is_dir():
            inside = sorted(
                str(entry)
                for entry in place.rglob("*")
                if entry.name.lower().endswith(SUFFIXES) and entry.is_file() and not entry.name.startswith(".")
            )
            if not inside:
                raise DatasetError(f"{shown(path)}: has none of {', '.join(SUFFIXES)}: name a folder with records")
            found += inside
        elif not place.exists():
            raise DatasetError(f"no such file or directory: {shown(path)}")
        elif not path.lower().endswith(SUFFIXES):
            raise DatasetError(f"{shown(path)} is not a kind of file that records are read from: {', '.join(SUFFIXES)}")
        else:
            found.append(path)
    if found.count("-") > 1:
        raise DatasetError("standard input (-) is named twice: name it once")
    return found


def read_items(files: Sequence[str], settings: Settings) -> Iterator[Item]:
    """The records of the files, in order; one that cannot be used has a ``reason`` in its place.

    Raises:
        DatasetError: a file cannot be read.
    """
    for number, file in enumerate(files):
        for line, value, reason in _values(file):
            yield Item(number, line, reason=reason) if reason else _item(number, line, value, settings)


def _values(file: str) -> Iterator[tuple[int, Any, str | None]]:
    name = file.lower()
    try:
        if name.endswith(".parquet"):
            yield from _rows(file)
        elif name.removesuffix(".gz").endswith(".txt"):
            yield from _lines(file)
        else:
            for item in values(file):
                yield item.line, item.value, item.reason
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or str(error) or "it ends too soon"
        raise DatasetError(f"cannot read {readable(file)}: {why}") from error


def _lines(file: str) -> Iterator[tuple[int, Any, str | None]]:
    """Each line of a text is a text of its own; empty ones are passed over."""
    with ExitStack() as opened:
        stream: Any = opened.enter_context(Path(file).open("rb"))
        if file.lower().endswith(".gz"):
            stream = opened.enter_context(gzip.GzipFile(fileobj=stream))
        for number, line in enumerate(stream, start=1):
            data = line.rstrip(b"\r\n")
            try:
                text = data.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                yield number, None, f"not UTF-8: byte {error.start + 1} is 0x{data[error.start]:02x}"
                continue
            if text.strip():
                yield number, {"text": text}, None


def _rows(file: str) -> Iterator[tuple[int, Any, str | None]]:
    parquet = need("pyarrow.parquet")
    arrow = sys.modules["pyarrow"]
    try:
        table = parquet.ParquetFile(file)
        number = 0
        for batch in table.iter_batches(batch_size=ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, {key: value for key, value in row.items() if value is not None}, None
    except arrow.ArrowException as error:
        raise DatasetError(f"cannot read {readable(file)}: {str(error).splitlines()[0]}") from None


def _item(file: int, line: int, value: Any, settings: Settings) -> Item:
    """A record as its fields say: a list of pairs, ``messages``, a prompt with its completion, or ``text``."""

    def bad(reason: str) -> Item:
        return Item(file, line, reason=reason)

    category = -1
    if settings.categories is not None:
        named = value[0] if isinstance(value, list) and value else value
        name = named.get("category") if isinstance(named, dict) else None
        if name not in settings.categories:
            return bad(f'its "category" is {shown(str(name))}, which is none of those in the list')
        category = settings.categories.index(name)
    if isinstance(value, dict) and settings.prompt_keyword not in value and isinstance(value.get("messages"), list):
        messages = value["messages"]
        if not messages or not all(
            isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages
        ):
            return bad('its "messages" are not objects with a role and content')
        if not any(message["role"] == "assistant" for message in messages):
            return bad("the conversation has no turn of the assistant: there is nothing to learn from it")
        tools = value.get("tools")
        return Item(file, line, messages=tuple(messages), tools=tools, category=category, value=value)
    pairs: list[Pair] = []
    for record in value if isinstance(value, list) else [value]:
        found = _pair(record, settings)
        if isinstance(found, str):
            return bad(found)
        pairs.append(found)
    if not pairs:
        return bad("the list is empty")
    return Item(file, line, tuple(pairs), category=category, value=value)


def _pair(record: Any, settings: Settings) -> Pair | str:
    """The pair of a record, or what is wrong with it."""
    if not isinstance(record, dict):
        return "not a JSON object"
    prompt, completion = record.get(settings.prompt_keyword), record.get(settings.completion_keyword)
    if prompt is None and completion is None and isinstance(record.get("text"), str):
        prompt, completion = "", record["text"]
    if completion is None and settings.completion_keyword not in record:
        return f'the record has no "{shown(settings.completion_keyword)}"'
    prompt = "" if prompt is None else prompt
    if not isinstance(prompt, str):
        return f'its "{shown(settings.prompt_keyword)}" is not a text'
    if not isinstance(completion, str):
        return f'its "{shown(settings.completion_keyword)}" is not a text'
    if not prompt and not completion:
        return "prompt and completion are empty"
    return Pair(prompt, completion)
