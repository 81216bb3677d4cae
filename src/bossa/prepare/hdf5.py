"""The HDF5 files: sequences of token ids and token types, as SambaNova's public data preparation tool writes them.

``input_ids`` and ``token_type_ids``, and ``category_ids`` on request, are int32 ``[n, L]``, compressed by gzip at level
4, and may grow in their first axis.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.errors import DatasetError, shown
from bossa.prepare.packages import need

LEVEL = 4
CHUNK = 1 << 16
"""Numbers of a chunk, about: whole sequences."""
NAMES = ("input_ids", "token_type_ids")


def write_sequences(path: Path, datasets: Mapping[str, NDArray[Any]], pool: Executor) -> None:
    """Write a file of datasets ``[n, L]`` by name, as int32. The chunks are compressed by the pool's threads.

    Raises:
        OSError: it cannot be written.
    """
    h5py = need("h5py")
    with h5py.File(path, "w") as file:
        for name, rows in datasets.items():
            count, length = rows.shape
            chunk = max(1, min(count, CHUNK // length))
            dataset = file.create_dataset(
                name, (count, length), np.int32, maxshape=(None, length), chunks=(chunk, length),
                compression="gzip", compression_opts=LEVEL,
            )  # fmt: skip

            def compressed(start: int, rows: Any = rows, chunk: int = chunk) -> bytes:
                block = np.zeros((chunk, rows.shape[1]), "<i4")
                block[: len(rows) - start] = rows[start : start + chunk]
                return zlib.compress(block.tobytes(), LEVEL)

            starts = range(0, count, chunk)
            for start, data in zip(starts, pool.map(compressed, starts), strict=True):
                dataset.id.write_direct_chunk((start, 0), data)


def split_files(folder: Path, split: str) -> list[Path]:
    """The files of a split, ``train`` or ``dev``, in their order; none where it has none.

    Raises:
        DatasetError: there is no such folder, or a file of the set is missing.
    """
    if not folder.is_dir():
        raise DatasetError(f"no such folder: {shown(str(folder))}: give the one that bossa prepare wrote")
    found: dict[int, Path] = {}
    totals: set[int] = set()
    for path in folder.iterdir():
        if match := re.fullmatch(rf"{split}_(\d+)_of_(\d+)\.hdf5", path.name):
            found[int(match[1])] = path
            totals.add(int(match[2]))
    if len(totals) > 1:
        raise DatasetError(f"{shown(str(folder))}: has {split} files of several sets: keep one set")
    for total in totals:
        first = 0 if 0 in found else 1
        missing = [number for number in range(first, first + total) if number not in found]
        if missing:
            name = f"{split}_{missing[0]}_of_{total}.hdf5"
            raise DatasetError(f"{shown(str(folder))}: {name} is missing: prepare the data again")
    return [found[number] for number in sorted(found)]


class SequenceFile:
    """A file that is read, of either tool: its rows some at a time. Use it with ``with``.

    Attributes:
        length: L, tokens of a sequence.
        count: sequences.

    Raises:
        DatasetError: it is damaged, or has other datasets than it should.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        h5py = need("h5py")
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise DatasetError(
                f"{shown(str(path))}: is no HDF5 file that can be read ({error}): prepare it again"
            ) from None
        shapes = []
        for name in NAMES:
            dataset = self._file.get(name)
            if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 2 or dataset.dtype.kind not in "iu":
                self._file.close()
                raise DatasetError(
                    f"{shown(str(path))}: has no {name} of integers [sequences, tokens]: prepare the data again"
                )
            shapes.append(dataset.shape)
        if shapes[0] != shapes[1]:
            self._file.close()
            raise DatasetError(f"{shown(str(path))}: its two datasets differ in shape: prepare the data again")
        self.count, self.length = shapes[0]

    def rows(self, at_once: int = 4096) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """Token ids and their types, ``[n, L]`` each, some sequences at a time.

        Raises:
            DatasetError: the file is damaged, or has types that there are not.
        """
        for start in range(0, self.count, at_once):
            try:
                tokens, types = (self._file[name][start : start + at_once].astype(np.int32) for name in NAMES)
            except OSError as error:
                raise DatasetError(f"{shown(str(self.path))}: is damaged ({error}): prepare the data again") from None
            if types.size and (types.min() < 0 or types.max() > 3):
                raise DatasetError(
                    f"{shown(str(self.path))}: has token types that are none of 0 to 3: prepare it again"
                )
            yield tokens, types

    def __enter__(self) -> SequenceFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
