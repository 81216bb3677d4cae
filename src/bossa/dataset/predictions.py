"""Predictions out: the seed's text, or JSON Lines, each written as soon as all before it are done."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TextIO, TypeVar

from bossa.dataset.json_text import dump
from bossa.errors import BossaError, DatasetError
from bossa.host.files import Busy, Lock, create_beside, put_in_place
from bossa.host.output import destination
from bossa.host.signals import held

SEPARATOR = "\n" + "-" * 20 + "\n"
GZIP = 31
"""What zlib calls a window of 32 KiB in gzip's frame."""
OTHER_PACKERS = (".bz2", ".xz", ".zst", ".lz4", ".zip", ".z", ".7z", ".tgz", ".tar.gz")

Item = TypeVar("Item")


def write_text(predictions: Iterable[str], stream: TextIO | None = None) -> None:
    """Write predictions as ``print(*predictions, sep="\\n" + "-" * 20 + "\\n")`` does, each as soon as it comes."""
    with TextWriter(stream) as writer:
        for index, prediction in enumerate(predictions):
            writer.put(index, prediction)


class InOrder(Generic[Item]):
    """Takes items in any order, and gives each back once all with a lower index, from 0, have come."""

    def __init__(self) -> None:
        self._next = 0
        self._early: dict[int, Item] = {}

    def put(self, index: int, item: Item) -> list[Item]:
        """Take an item; those whose turn has come, in order."""
        if index >= self._next:  # one may come twice where a signal came in between
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

    Lines go to a new file beside it, ``.NAME.….part``, each in one piece. Leaving the ``with`` block gives that file
    the name, and so does Ctrl-C or another signal that ends the run, after writing the records whose turn had not come.
    After any other error the part stays, with whole lines only. Until the end nobody else can write to the same name.
    A name that ends in ``.gz`` gets gzip, which can be read up to the last whole line at any time. Pipes, devices and
    descriptors are written as they are; ``-`` is standard output.

    Args:
        path: the file, or ``-``.

    Raises:
        DatasetError: it cannot be written, or another process writes it; the message names what is kept.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.part: Path | None = None
        self._order: InOrder[Mapping[str, Any]] = InOrder()
        self._whole = 0  # bytes of whole lines, as they are in the file
        self._torn = False
        self._target: Path | None = None
        self._lock: Lock | None = None
        self._file: int | None = None  # None is standard output
        self._gzip = zlib.compressobj(wbits=GZIP) if path.lower().endswith(".gz") else None
        if path.lower().endswith(OTHER_PACKERS):
            raise DatasetError(f"cannot write {path}: records are written as they are, or as .gz: name it so")
        if path == "-":
            return
        try:
            self._open(path)
        except Busy:
            raise DatasetError(
                f"another process is writing {path}: wait until it has ended, or give another --output"
            ) from None
        except OSError as error:
            raise DatasetError(f"cannot write {path}: {error.strerror}") from error

    def _open(self, path: str) -> None:
        place = destination(path)
        if isinstance(place, int):
            self._file = place
            return
        self._lock = Lock(place)
        try:
            self.part, self._file = create_beside(place, ".part")
        except BaseException:
            self._lock.release()
            raise
        self._target = place

    def put(self, index: int, fields: Mapping[str, Any]) -> None:
        """Take the record at ``index``, and write all whose turn has come."""
        with self._whole_lines():
            self._write(self._order.put(index, fields))

    def close(self, interrupted: bool = False) -> None:
        """Write what waits, and give the file its name; if ``interrupted``, only where there is a record."""
        with self._whole_lines():
            self._close(interrupted)

    def _close(self, interrupted: bool) -> None:
        try:
            if self._torn:
                return  # an interrupt came as a pipe took half a line: what follows would be no line of its own
            self._write(self._order.rest())
            if interrupted and self.part is not None and not self._whole:
                self.part.unlink()  # what was there before is worth more
                return
            if self._gzip is not None:
                self._write_bytes(self._gzip.flush())
            if self.part is not None and self._target is not None:
                put_in_place(self.part, self._target, self._file)
        except OSError as error:
            _give_up(error, self.path, f"the records are in {self.part}" if self.part is not None else "")
        finally:
            self._let_go()

    def _write(self, records: Iterable[Mapping[str, Any]]) -> None:
        for fields in records:
            line = dump(fields)
            self._torn = self._target is None
            if self._gzip is not None:
                line = self._gzip.compress(line) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
            try:
                self._write_bytes(line)
            except OSError as error:
                if self._file is not None and self.part is not None:
                    with suppress(OSError):
                        os.ftruncate(self._file, self._whole)
                _give_up(error, self.path, f"what was done before is in {self.part}" if self._kept() else "")
            self._whole += len(line)
            self._torn = False

    def _write_bytes(self, data: bytes) -> None:
        if self._file is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        left = memoryview(data)
        while left:
            left = left[os.write(self._file, left) :]

    def _whole_lines(self) -> AbstractContextManager[None]:
        """Keep signals from cutting a line of a file in two; a pipe may block for long, and must not keep them."""
        return held() if self._target is not None else nullcontext()

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._lock is not None:
            self._lock.release()

    def _kept(self) -> bool:
        return self.part is not None and self._whole > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            self.close(interrupted=error is not None)
            return
        self._let_go()
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
