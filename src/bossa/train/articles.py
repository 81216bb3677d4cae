"""Articles: what a model is trained on, read from HDF5 files of token ids and token types.

The files are those of SambaNova's public data preparation tool and of ours: ``train_1_of_4.hdf5``, with ``input_ids``
and ``token_type_ids``, int32 ``[n, L]``. Rows are cut at their end tokens and padding, so that how they were packed
does not matter any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.errors import DatasetError, shown
from bossa.prepare.settings import COMPLETION, END, PADDING
from bossa.train.errors import missing_package

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Articles:
    """All articles of a split, one behind the other.

    Attributes:
        tokens: their ids, int32 ``[tokens]``.
        types: the type of each, uint8 ``[tokens]``.
        starts: where each begins and, at the end, where the last one ends; int64 ``[articles + 1]``.
        dropped: articles without a label that counts, which are left out.
    """

    tokens: NDArray[np.int32]
    types: NDArray[np.uint8]
    starts: NDArray[np.int64]
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each."""
        return np.diff(self.starts)

    def of(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """The ids and types of one article."""
        part = slice(self.starts[number], self.starts[number + 1])
        return self.tokens[part], self.types[part]


def read_articles(files: Sequence[Path], vocabulary: int, prompt_weight: float) -> Articles:
    """All articles of the files that have a label which counts.

    Args:
        vocabulary: token ids of the model: every id must be below it.
        prompt_weight: what a prompt's token weighs in the loss; 0 where only completions count.

    Raises:
        DatasetError: a file cannot be read, is not laid out as said above, or was made with another tokenizer; or no
            article has a label that counts.
    """
    parts = [part for path in files for part in _read_file(path, vocabulary)]
    tokens = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.int32)
    types = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, np.uint8)
    lengths = np.concatenate([part[2] for part in parts]) if parts else np.zeros(0, np.int64)
    where = shown(files[0].parent) if files else "the data"
    if not len(lengths):
        raise DatasetError(f"{where}: {shown(files[0].name) if files else 'it'} and what belongs to it hold no article")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    counts = types != PADDING if prompt_weight > 0 else (types == COMPLETION) | (types == END)
    counts[starts[:-1]] = False  # nothing comes before the first token that could predict it
    labels = np.add.reduceat(counts.astype(np.int64), starts[:-1])
    keep = labels > 0
    if not keep.any():
        raise DatasetError(
            f"{where}: all labels are masked: no article has a completion (token types 1 and 3) to learn; prepare the"
            " data with completions, or give --prompt_loss_weight"
        )
    kept = np.repeat(keep, lengths)
    lengths = lengths[keep]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return Articles(tokens[kept], types[kept], starts, int((~keep).sum()))


def _read_file(path: Path, vocabulary: int) -> list[tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64]]]:
    """Tokens, types and lengths of the articles of a file, some rows at a time."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    where, parts = shown(path), []
    try:
        with h5py.File(path, "r") as file:
            ids, types = (_dataset(file, name, where) for name in ("input_ids", "token_type_ids"))
            if ids.shape != types.shape:
                raise DatasetError(
                    f"{where}: input_ids are {list(ids.shape)} and token_type_ids {list(types.shape)}, which must be"
                    " alike: prepare the data again"
                )
            for start in range(0, ids.shape[0], ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                parts.append(_cut(ids[rows].astype(np.int64), types[rows], vocabulary, where, start))
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DatasetError(f"{where}: is no HDF5 file that can be read ({error}): prepare the data again") from None
    return parts


def _dataset(file: Any, name: str, where: str) -> Any:
    found = file.get(name)
    if found is None or getattr(found, "ndim", 0) != 2 or found.dtype.kind not in "iu":
        raise DatasetError(f"{where}: has no table of whole numbers named {name}: prepare the data with bossa prepare")
    return found


def _cut(
    ids: NDArray[np.int64], types: NDArray[Any], vocabulary: int, where: str, first_row: int
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64]]:
    """Cut rows ``[n, L]`` into articles: behind each end token, at padding, and at the rows' ends."""
    if types.size and not 0 <= types.min() <= types.max() <= END:
        raise DatasetError(f"{where}: token types are 0 to 3, and one is {types.max()}: prepare the data again")
    real = types != PADDING
    wrong = real & ((ids < 0) | (ids >= vocabulary))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DatasetError(
            f"{where}: row {first_row + row} has token {ids[row, column]}, and the model knows {vocabulary}: the data"
            " were made with another tokenizer; prepare them with the model's own"
        )
    previous = np.full_like(types, PADDING)
    previous[:, 1:] = types[:, :-1]
    begins = real & ((previous == PADDING) | ((previous == END) & (types != END)))
    begins |= real & (previous == END) & (types == END)  # an end token alone is an article without labels
    flat = real.reshape(-1)
    begin_places = np.flatnonzero(begins.reshape(-1)[flat])
    lengths = np.diff(np.append(begin_places, int(flat.sum()))).astype(np.int64)
    return ids.reshape(-1)[flat].astype(np.int32), types.reshape(-1)[flat].astype(np.uint8), lengths
