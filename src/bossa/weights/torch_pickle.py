"""What a torch file's pickles ask for, found out before torch makes any of it.

A pickle of a few bytes may ask for any number: a text of gigabytes, a storage without data behind it, a tensor larger
than its storage, which makes the storage grow. Each is held against the size of the file. What torch's own unpickler
refuses, it refuses itself: here all other instructions do nothing.
"""

from __future__ import annotations

import mmap
import pickletools
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEGIN = (b"PK\x03\x04", b"\x80")
"""A ZIP, and the format before it: a few pickles, then the numbers."""
LEGACY = 5
"""Pickles in the older format: its mark, its version, its sizes, the state dict, the keys of its storages."""
SIZED = re.compile(r"torch\.(storage\.)?\w*(Tensor|Storage)|(builtins|__builtin__)\.bytearray")
"""What is as large as it is told to be."""
BYTES = {"DoubleStorage": 8, "LongStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16}
BYTES |= dict.fromkeys(("FloatStorage", "IntStorage", "QInt32Storage"), 4)
BYTES |= dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2)


class Excess(ValueError):
    """A file asks for more than it holds."""


@dataclass(frozen=True)
class _Name:
    """A class or function, or what it has made."""

    text: str
    made: bool = False


@dataclass(frozen=True)
class _Storage:
    numbers: int


def check_torch_file(path: Path) -> None:
    """Refuses a file that would have more made of it than it holds, or that is neither kind of torch's files.

    Raises:
        Excess: it asks for more than it holds.
        Exception: it is damaged; of whatever kind its bytes lead to.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if not data[:4].startswith(BEGIN):
            raise ValueError("it begins as neither")
        if data[:4] == BEGIN[0]:
            with zipfile.ZipFile(path) as archive:
                _check_archive(archive, len(data))
        else:
            machine = _Machine(len(data))
            all(machine.run(data) for _ in range(LEGACY))


def _check_archive(archive: zipfile.ZipFile, size: int) -> None:
    machine = _Machine(size)
    for member in archive.infolist():
        if member.file_size > size:
            raise Excess(f"{member.file_size:,} bytes in one of its members")
        if member.compress_type != zipfile.ZIP_STORED and "/data/" in member.filename:
            raise Excess("a tensor that is compressed, as torch writes none")
        if member.filename.lower().endswith("data.pkl"):
            with archive.open(member) as file:
                machine.run(file.read())


class _Machine:
    """Goes through pickles as an unpickler does, with what stands for the values in their place."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._storages: dict[Any, int] = {}
        self._copied = 0

    def run(self, file: Any) -> bool:
        """One pickle, from where the file stands to its end; whether torch's unpickler reads all of it."""
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[Any, Any] = {}
        for operation, argument, _ in pickletools.genops(file):
            act = _ACTIONS.get(operation.name)
            if act is not None:
                act(self, argument)
            elif operation.name not in ("PROTO", "FRAME", "STOP"):
                return False
        return True

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _marked(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def items_to_tuple(self, _: Any) -> None:
        items = tuple(self._marked())
        self.push(items)

    def few_to_tuple(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self.push(items)

    def extend(self, items: Sequence[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def put(self, place: Any) -> None:
        self._memo[place] = self._stack[-1]

    def get(self, place: Any) -> None:
        self.push(self._memo[place])

    def named(self, argument: str) -> None:
        self.push(_Name(argument.replace(" ", ".")))

    def storage(self, _: Any) -> None:
        """A storage that the file holds."""
        claim = self._stack.pop()
        if not isinstance(claim, tuple) or len(claim) < 5 or not isinstance(claim[4], int):
            self.push(_Storage(self._size))  # one that is there, or what torch refuses
            return
        kind, key, numbers = claim[1], claim[2], claim[4]
        width = BYTES.get(kind.text.rpartition(".")[2], 1) if isinstance(kind, _Name) else 1
        self._storages[key] = max(self._storages.get(key, 0), numbers * width)
        if (held := sum(self._storages.values())) > self._size:
            raise Excess(f"storages of {held:,} bytes")
        self.push(_Storage(numbers))

    def make(self, _: Any) -> None:
        """A function or class called with what stands above it."""
        given = self._stack.pop()
        named = self._stack.pop()
        name = named.text if isinstance(named, _Name) and not named.made else ""
        values = given if isinstance(given, tuple) else ()
        self._copied += sum(len(value) for value in values if isinstance(value, str | bytes | list | tuple))
        if self._copied > self._size:
            raise Excess(f"{self._copied:,} bytes and items made of others")
        if SIZED.fullmatch(name) and not all(isinstance(value, str) for value in values):
            raise Excess(f"a {name[:60]} of a size of its own")
        if name.startswith("torch._utils._rebuild_"):
            self._check_extent(values)
        self.push(_Name(name, made=True))

    def build(self, _: Any) -> None:
        state = self._stack.pop()
        if isinstance(state, tuple):
            self._check_extent(state)

    def _check_extent(self, values: Sequence[Any]) -> None:
        """That a tensor of (storage, offset, size, stride) lies within its storage, which grows otherwise."""
        if len(values) < 4 or not isinstance(values[0], _Storage):
            return
        storage, offset, size, stride = values[:4]
        if not (isinstance(offset, int) and isinstance(size, tuple) and isinstance(stride, tuple)):
            return
        if not all(isinstance(number, int) for number in (*size, *stride)) or 0 in size:
            return
        end = offset + 1 + sum((extent - 1) * step for extent, step in zip(size, stride, strict=False))
        if end > storage.numbers:
            raise Excess(f"a tensor of {end:,} numbers in a storage of {storage.numbers:,}")


Action = Callable[[_Machine, Any], None]
_ACTIONS: dict[str, Action] = {
    "MARK": _Machine.mark,
    "TUPLE": _Machine.items_to_tuple,
    "TUPLE1": lambda machine, _: machine.few_to_tuple(1),
    "TUPLE2": lambda machine, _: machine.few_to_tuple(2),
    "TUPLE3": lambda machine, _: machine.few_to_tuple(3),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), lambda machine, _: machine.push([])),
    **dict.fromkeys(("NONE", "NEWTRUE", "NEWFALSE"), lambda machine, _: machine.push(None)),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _Machine.push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINSTRING"), _Machine.push),
    "APPEND": lambda machine, _: machine.extend([machine._stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine._marked()),
    "SETITEM": lambda machine, _: machine.extend([machine._stack.pop(), machine._stack.pop()]),
    "SETITEMS": lambda machine, _: machine.extend(machine._marked()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": _Machine.named,
    "BINPERSID": _Machine.storage,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.make),
    "BUILD": _Machine.build,
}
