"""Predictions out: the seed's text, or JSON Lines, each written as soon as all before it are done."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TextIO, TypeVar

from bossa.dataset.json_text import dump
from bossa.dataset.prompts import BadRecord, Record
from bossa.errors import BossaError, DatasetError

SEPARATOR = "\n" + "-" * 20 + "\n"

Item = TypeVar("Item")


def write_text(predictions: Iterable[str], stream: TextIO | None = None) -> None:
    """Write predictions as ``print(*predictions, sep="\\n" + "-" * 20 + "\\n")`` does, each as soon as it comes."""
    with TextWriter(stream) as writer:
        for index, prediction in enumerate(predictions):
            writer.put(index, prediction)


def completion_fields(record: Record, *answers: Mapping[str, Any]) -> dict[str, Any]:
    """The output record of a prompt: its own fields, then those of its answer, or several under ``completions``.

    A field of its own that has one of these names is kept as ``input_`` and that name.
    """
    ours = answers[0] if len(answers) == 1 else {"completions": list(answers)}
    return {**_renamed(record.fields, ours), **ours}


def answer_fields(
    text: str, token_ids: Sequence[int], finish_reason: str, logprobs: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """The fields of one completion: ``completion``, ``token_ids``, ``finish_reason``, and ``logprobs`` if given."""
    fields = {"completion": text, "token_ids": list(token_ids), "finish_reason": finish_reason}
    return fields if logprobs is None else {**fields, "logprobs": list(logprobs)}


def error_fields(record: Record | BadRecord, reason: str | None = None) -> dict[str, Any]:
    """The output record of a prompt that could not be run: its own fields, then ``error``: file, line and reason."""
    if reason is None:
        reason = record.reason if isinstance(record, BadRecord) else "it was not run"
    ours = {"error": {"file": record.file, "line": record.line, "reason": reason}}
    return {**_renamed(record.fields, ours), **ours}


def _renamed(fields: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, Any]:
    return {f"input_{name}" if name in taken else name: value for name, value in fields.items()}


class InOrder(Generic[Item]):
    """Takes items in any order, and gives each back once all with a lower index, from 0, have come."""

    def __init__(self) -> None:
        self._next = 0
        self._early: dict[int, Item] = {}

    def put(self, index: int, item: Item) -> list[Item]:
        """Take an item; those whose turn has come, in order."""
        self._early[index] = item
        ready: list[Item] = []
        while self._next in self._early:
            ready.append(self._early.pop(self._next))
            self._next += 1
        return ready

    def rest(self) -> list[Item]:
        """Those whose turn has not come, in order."""
        return [item for _, item in sorted(self._early.items(), key=lambda pair: pair[0])]


class TextWriter:
    """Writes predictions to a text stream in the order of their indices, and closes with a newline as ``print`` does.

    Interrupted, it writes those whose turn had not come yet, too.

    Raises:
        DatasetError: the stream cannot be written.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._order: InOrder[str | None] = InOrder()
        self._begun = False

    def put(self, index: int, prediction: str | None) -> None:
        """Take a prediction, or None for a prompt that has none."""
        self._write(self._order.put(index, prediction))

    def _write(self, predictions: Iterable[str | None]) -> None:
        try:
            for prediction in predictions:
                if prediction is not None:
                    self._stream.write(SEPARATOR + prediction if self._begun else prediction)
                    self._stream.flush()
                    self._begun = True
        except OSError as error:
            _give_up(error, "the predictions")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DatasetError | BrokenPipeError):
            return
        self._write(self._order.rest())
        try:
            self._stream.write("\n")
            self._stream.flush()
        except OSError as failure:
            _give_up(failure, "the predictions")


class JsonlWriter:
    """Writes JSON Lines in the order of their indices, to a file that appears under its name when it is whole.

    Lines go to ``.NAME.part`` beside it, each in one piece. Leaving the ``with`` block renames that to NAME, and so
    does Ctrl-C, after writing the records whose turn had not come. After any other error the ``.part`` file stays,
    with whole lines only. Pipes and devices are written as they are; ``-`` is standard output.

    Args:
        path: the file, or ``-``.

    Raises:
        DatasetError: it cannot be written; the message names what is kept.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._order: InOrder[Mapping[str, Any]] = InOrder()
        self._whole = 0  # bytes of whole lines
        target = Path(os.path.realpath(path))
        self._target = target if path != "-" and (target.is_file() or not target.exists()) else None
        self.part = target.with_name(f".{target.name}.part") if self._target is not None else None
        self._file: int | None = None  # None is standard output
        if path == "-":
            return
        if target.is_dir():
            raise DatasetError(f"cannot write {path}: it is a directory")
        try:
            self._file = os.open(self.part or target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise DatasetError(f"cannot write {path}: {error.strerror}") from error

    def put(self, index: int, fields: Mapping[str, Any]) -> None:
        """Take the record at ``index``, and write all whose turn has come."""
        self._write(self._order.put(index, fields))

    def close(self) -> None:
        """Write what waits for its turn, and give the file its name."""
        try:
            self._write(self._order.rest())
        finally:
            self._close_file()
        if self.part is not None and self._target is not None:
            try:
                self.part.replace(self._target)
            except OSError as error:
                _give_up(error, self.path, f"the records are in {self.part}")

    def _write(self, records: Iterable[Mapping[str, Any]]) -> None:
        for fields in records:
            line = dump(fields)
            try:
                self._write_line(line)
            except OSError as error:
                if self._file is not None and self.part is not None:
                    with suppress(OSError):
                        os.ftruncate(self._file, self._whole)
                _give_up(error, self.path, f"what was done before is in {self.part}" if self._kept() else "")
            self._whole += len(line)

    def _write_line(self, line: bytes) -> None:
        if self._file is None:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return
        left = memoryview(line)
        while left:
            left = left[os.write(self._file, left) :]

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _kept(self) -> bool:
        return self.part is not None and self._whole > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            self.close()
            return
        self._close_file()
        if self._kept() and str(self.part) not in str(error):
            kept = f"what was done before is in {self.part}"
            if isinstance(error, BossaError):
                error.args = (f"{error}; {kept}",)
            else:
                error.add_note(kept)
        elif self.part is not None and not self._whole:
            self.part.unlink(missing_ok=True)


def _give_up(error: OSError, what: str, kept: str = "") -> NoReturn:
    if isinstance(error, BrokenPipeError):
        raise error
    raise DatasetError(f"cannot write {what}: {error.strerror}" + (f"; {kept}" if kept else "")) from error
