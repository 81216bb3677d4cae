"""The standard streams as a command wants them, whatever it was started with.

Descriptors 0, 1 and 2 are always open, so that no file of ours gets such a number and is written to by a library that
means the terminal. Text goes out as UTF-8 in every locale. What is written to standard error is for a person and never
stops the work: where it cannot be written it is lost.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from bossa.errors import StreamError

NAMES = ("input", "output", "error")

_closed: set[int] = set()


def need(number: int) -> None:
    """Refuse to start work whose input or output would be a stream that was closed when the process started.

    Raises:
        StreamError: it was.
    """
    if number in _closed:
        raise StreamError(f"standard {NAMES[number]} is closed, and is needed: start bossa with it open")


@contextlib.contextmanager
def ready() -> Iterator[None]:
    """Within the block the streams are as this module promises; after it they are as they were."""
    _open_descriptors()
    stdin, stdout, stderr = sys.stdin, sys.stdout, sys.stderr
    former = None
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    if sys.stdout is None:
        nowhere = io.BufferedWriter(io.FileIO(1, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(nowhere, encoding="utf-8", errors="bossa")
    elif isinstance(sys.stdout, io.TextIOWrapper):
        former = sys.stdout.encoding, sys.stdout.errors
        sys.stdout.reconfigure(encoding="utf-8", errors="bossa")
    sys.stderr = _forgiving(sys.stderr)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        if former is not None and isinstance(stdout, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stdout.reconfigure(encoding=former[0], errors=former[1])
        sys.stdin, sys.stdout, sys.stderr = stdin, stdout, stderr


def settle() -> None:
    """Send to nowhere what standard output cannot write, which the interpreter would try again at its end."""
    try:
        sys.stdout.flush()
    except ValueError:
        pass  # it was closed
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
            sys.stdout.flush()


def _open_descriptors() -> None:
    for number, stream in enumerate((sys.__stdin__, sys.__stdout__, sys.__stderr__)):
        if stream is None:
            _closed.add(number)
        try:
            os.fstat(number)
        except OSError:
            _closed.add(number)
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free


def _forgiving(stream: TextIO | None) -> TextIO:
    """The stream that writes where ``stream`` does, and whose writes never fail."""
    try:
        number = 2 if stream is None else stream.fileno()
    except (OSError, ValueError):
        return stream if stream is not None else io.StringIO()  # text in memory, in a test
    raw = io.BufferedWriter(_Forgiving(number))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=True)


class _Forgiving(io.RawIOBase):
    def __init__(self, number: int) -> None:
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data: Any, /) -> int:
        whole = memoryview(data)
        try:
            return os.write(self._number, whole)
        except BlockingIOError:
            select.select([], [self._number], [], 1.0)
            with contextlib.suppress(OSError):
                return os.write(self._number, whole)
        except OSError:
            pass
        return whole.nbytes


def _bytes_as_they_were(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes of an argument or a file name that are not UTF-8 go out as they came in; half of a pair as an escape."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error("bossa", _bytes_as_they_were)
