"""Articles on disk, between being encoded and being packed: in order, or in an order that is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bossa.prepare.encode import Article
from bossa.prepare.packing import Part

ENTRY = np.dtype([("length", "<i4"), ("file", "<i4"), ("line", "<i8"), ("category", "<i4")])
PARTS = ("tokens", "types", "index")


class Spool:
    """Articles one behind the other, in three files: tokens, types, and an entry for each.

    Args:
        folder: where they are.
        name: what they begin with.
        sizes: bytes of each file that count, when an earlier run is gone on with; the rest is cut off.
    """

    def __init__(self, folder: Path, name: str, sizes: list[int] | None = None) -> None:
        self.paths = [folder / f"{name}.{part}" for part in PARTS]
        self._files = [path.open("r+b" if sizes is not None else "w+b") for path in self.paths]
        for file, size in zip(self._files, sizes or (), strict=bool(sizes)):
            file.truncate(size)
            file.seek(size)

    def add(self, article: Article) -> None:
        tokens, types, index = self._files
        tokens.write(article.tokens.tobytes())
        types.write(article.types.tobytes())
        item = article.item
        index.write(np.array([(len(article.tokens), item.file, item.line, item.category)], ENTRY).tobytes())

    def flush(self) -> list[int]:
        """The bytes of each file, all of which the system has."""
        for file in self._files:
            file.flush()
        return [file.tell() for file in self._files]

    def close(self) -> None:
        for file in self._files:
            file.close()

    def entries(self) -> NDArray[np.void]:
        """The entry of each article."""
        return np.fromfile(self.paths[2], ENTRY)

    def parts(self, order: NDArray[np.int64] | None) -> Iterator[Part]:
        """The articles in this order, or in their own; each numbered by its place in the spool."""
        lengths = self.entries()["length"].astype(np.int64)
        if not len(lengths):
            return
        ends = np.cumsum(lengths)
        tokens = np.memmap(self.paths[0], np.int32, "r")
        types = np.memmap(self.paths[1], np.uint8, "r")
        categories = self.entries()["category"]
        for number in range(len(ends)) if order is None else order.tolist():
            place = slice(int(ends[number] - lengths[number]), int(ends[number]))
            yield Part(int(number), tokens[place], types[place], int(categories[number]))
