"""The header of a GGUF file, read to say what is wrong with a file before it is handed to a loader that cannot say.

Source of the layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from bossa.errors import WeightsError, shown
from bossa.weights.source import MAX_TENSORS

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of values by their numbers, as `struct` writes them; 8 is a string, 9 an array."""
STRING, ARRAY = 8, 9
VERSIONS = (2, 3)
DEEPEST = 4
ENTRIES = 65_536
"""The most keys."""
ITEMS = 1 << 22
"""The most items in all arrays: the largest vocabularies come with a million and a half. The loader makes an object
of each."""
LISTED = 4096
"""The longest array that is looked into: the sizes of each layer, where they differ."""
LAYERS, LEAST = 1024, 3
"""The most layers, and the least tensors that one has."""
NEEDED = ("block_count", "embedding_length")
"""What is taken from a model of the same kind, of gigabytes, where a file does not say it."""
EXTENTS = frozenset(
    "embedding_length feed_forward_length vocab_size attention.head_count attention.head_count_kv attention.key_length"
    " attention.value_length rope.dimension_count expert_count expert_used_count expert_feed_forward_length"
    " ssm.conv_kernel ssm.state_size ssm.time_step_rank ssm.inner_size shortconv.l_cache".split()
)
"""Keys, after the architecture, of what some tensor is at least as large as along one of its sides."""


@dataclass(frozen=True)
class Held:
    """What a file holds.

    Attributes:
        numbers: of all tensors.
        tensors: how many.
    """

    numbers: int
    tensors: int


def check_gguf(path: Path, sizes: dict[int, tuple[int, int]]) -> Held | None:
    """Refuses a file that is cut short or damaged, that is no whole language model, or whose sizes are not its own.

    Args:
        sizes: for each type of tensors, the numbers in a block and the bytes of one (``gguf.GGML_QUANT_SIZES``).

    Returns:
        What it holds; None where it is of a version that is not known here.

    Raises:
        WeightsError: it is, or it cannot be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Header(path, data).check(sizes)
    except OSError as error:
        raise WeightsError(f"{shown(path)}: cannot be read ({error.strerror}): check its permissions") from None


class _Header:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._at = 4
        self._order = "<"
        self._items = 0

    def check(self, sizes: dict[int, tuple[int, int]]) -> Held | None:
        version = self._number("I")
        if version & 0xFFFF == 0:  # written on a machine of the other order, which the loader reads too
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
            self._order = ">"
        if version not in VERSIONS:
            return None  # the loader says what it reads
        tensors, entries = self._number("Q"), self._number("Q")
        if tensors > MAX_TENSORS or entries > ENTRIES:
            self._refuse(f"claims {tensors:,} tensors and {entries:,} keys, and no more than {MAX_TENSORS:,} are read")
        values: dict[str, Any] = {}
        for _ in range(entries):
            key = self._text()
            values.setdefault(key, self._value(self._number("I")))
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
        numbers, largest = self._check_tensors(tensors, values.get("general.alignment", 32), sizes)
        self._check_sizes(values, tensors, largest)
        return Held(numbers, tensors)

    def _check_sizes(self, values: dict[str, Any], tensors: int, largest: int) -> None:
        """That the sizes in the metadata are those of the tensors: the loader makes a model of them before it looks."""
        architecture = values.get("general.architecture")
        for name in NEEDED if isinstance(architecture, str) else ():
            if f"{architecture}.{name}" not in values:
                self._refuse(f"is damaged: it lacks {architecture}.{name}, which says how large the model is")
        for key, value in values.items():  # of all architectures: the loader takes each that it knows
            name = key.partition(".")[2]
            if name not in EXTENTS and name != "block_count":
                continue
            most = min(tensors // LEAST, LAYERS) if name == "block_count" else largest
            for number in value if isinstance(value, list) else [value]:
                if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= most:
                    self._refuse(
                        f"is damaged: its {key} is {shown(number):.40}, and its tensors allow {most:,} at most"
                    )

    def _check_tensors(self, count: int, alignment: Any, sizes: dict[int, tuple[int, int]]) -> tuple[int, int]:
        """How many numbers they have, and the largest extent of one."""
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            self._refuse("is damaged: its alignment is no size")
        spans = []
        names = set()
        total = largest = 0
        for _ in range(count):
            name = self._text()
            dimensions = self._number("I")
            if dimensions > 8 or name in names:
                self._refuse(f"is damaged: tensor {name!r} has {dimensions} dimensions, or is there twice")
            names.add(name)
            shape = [self._number("Q") for _ in range(dimensions)]
            numbers = prod(shape)
            total += numbers
            largest = max(largest, *shape) if shape and numbers else largest
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
        return total, largest

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
        return struct.unpack_from(self._order + kind, self._data, self._take(struct.calcsize("<" + kind)))[0]

    def _text(self) -> str:
        size = self._number("Q")
        start = self._take(size)
        return self._data[start : start + size].decode("utf-8", "backslashreplace")

    def _value(self, kind: int, depth: int = 0) -> Any:
        """A number or a text, or a list of numbers; longer arrays and those of texts are passed over."""
        if kind == STRING:
            return self._text()
        if kind == ARRAY:
            inner, count = self._number("I"), self._number("Q")
            self._items += count
            if self._items > ITEMS:
                self._refuse(f"is damaged: its arrays have more than {ITEMS:,} items")
            if inner in SCALARS:
                if count <= LISTED:
                    return [self._number(SCALARS[inner]) for _ in range(count)]
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
