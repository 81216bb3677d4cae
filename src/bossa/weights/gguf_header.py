"""The header of a GGUF file, read to say what is wrong with a file before it is handed to a loader that cannot say.

Source of the layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from bossa.checks.shown import shown
from bossa.errors import WeightsError
from bossa.weights.source import MAX_TENSORS

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of values by their numbers, as `struct` writes them; 8 is a string, 9 an array."""
STRING, ARRAY = 8, 9
VERSIONS = (2, 3)
DEEPEST = 4
ENTRIES = 65_536
"""The most keys."""


def check_gguf(path: Path, sizes: dict[int, tuple[int, int]]) -> None:
    """Refuses a file that is cut short or damaged, or that is no whole language model.

    Args:
        sizes: for each type of tensors, the numbers in a block and the bytes of one (``gguf.GGML_QUANT_SIZES``).

    Raises:
        WeightsError: it is.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _Header(path, data).check(sizes)


class _Header:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._at = 4

    def check(self, sizes: dict[int, tuple[int, int]]) -> None:
        version = self._number("I")
        if version not in VERSIONS:
            return  # the loader says what it reads
        tensors, entries = self._number("Q"), self._number("Q")
        if tensors > MAX_TENSORS or entries > ENTRIES:
            self._refuse(f"claims {tensors:,} tensors and {entries:,} keys, and no more than {MAX_TENSORS:,} are read")
        values = {}
        for _ in range(entries):
            key = self._text()
            values[key] = self._value(self._number("I"))
        if values.get("general.architecture") == "clip":
            raise WeightsError(
                f"{shown(self._path)}: is the part of a model that sees or hears (mmproj), not a language model: pass"
                " the GGUF file beside it"
            )
        if isinstance(parts := values.get("split.count"), int) and parts > 1:
            raise WeightsError(
                f"{shown(self._path)}: is one of {parts} parts: join them (llama-gguf-split --merge), and pass the"
                " whole"
            )
        self._check_tensors(tensors, values.get("general.alignment", 32), sizes)

    def _check_tensors(self, count: int, alignment: Any, sizes: dict[int, tuple[int, int]]) -> None:
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            self._refuse("is damaged: its alignment is no size")
        spans = []
        names = set()
        for _ in range(count):
            name = self._text()
            dimensions = self._number("I")
            if dimensions > 8 or name in names:
                self._refuse(f"is damaged: tensor {name!r} has {dimensions} dimensions, or is there twice")
            names.add(name)
            numbers = prod(self._number("Q") for _ in range(dimensions))
            kind, offset = self._number("I"), self._number("Q")
            if kind not in sizes:
                self._refuse(f"is damaged, or newer than what reads it: tensor {name!r} has the type {kind}")
            block, size = sizes[kind]
            spans.append((offset, offset + numbers // block * size, name))
        start = -(-self._at // alignment) * alignment
        end = 0
        for begin, stop, name in sorted(spans):
            if begin < end:
                self._refuse(f"is damaged: tensor {name!r} lies over another")
            end = max(end, stop)
        if start + end > len(self._data):
            self._refuse(f"is cut short: its tensors end at {start + end:,}, the file at {len(self._data):,}")

    def _refuse(self, what: str) -> NoReturn:
        raise WeightsError(f"{shown(self._path)}: {what}: fetch the file again, or pass another")

    def _take(self, size: int) -> int:
        """Passes over bytes. Returns where they start."""
        start = self._at
        self._at += size
        if self._at > len(self._data):
            self._refuse("is cut short: its header goes on beyond its end")
        return start

    def _number(self, kind: str) -> Any:
        return struct.unpack_from("<" + kind, self._data, self._take(struct.calcsize("<" + kind)))[0]

    def _text(self) -> str:
        size = self._number("Q")
        start = self._take(size)
        return self._data[start : start + size].decode("utf-8", "backslashreplace")

    def _value(self, kind: int, depth: int = 0) -> Any:
        """A number or a text; arrays are passed over."""
        if kind == STRING:
            return self._text()
        if kind == ARRAY:
            inner, count = self._number("I"), self._number("Q")
            if inner in SCALARS:
                self._take(count * struct.calcsize("<" + SCALARS[inner]))
            elif inner == STRING:
                for _ in range(count):
                    self._take(self._number("Q"))
            else:
                if depth > DEEPEST or inner != ARRAY:
                    self._refuse(f"is damaged: it has an array of the type {inner}")
                for _ in range(count):
                    self._value(inner, depth + 1)
            return None
        if kind not in SCALARS:
            self._refuse(f"is damaged: it has a value of the type {kind}")
        return self._number(SCALARS[kind])
