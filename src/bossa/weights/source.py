"""Where weights come from: `open_weights` finds the files of a checkpoint; nothing is read until it is asked for."""

from __future__ import annotations

import hashlib
import os
import stat
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bossa.errors import WeightsError, shown

SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"
INDEX = ".index.json"
TORCH_ENDINGS = (".pt", ".pth", ".bin", ".ckpt")
ENDINGS = (".safetensors", ".gguf", *TORCH_ENDINGS)
READ = ("F32", "BF16", "F16", "F64")
"""How tensors may be stored."""
MAX_TENSORS = 100_000
"""The most tensors of a checkpoint: the largest in public without experts have some 2,000."""
PARTS = (SAFETENSORS, TORCH)
"""What a directory may hold, best first: each as one file, or as an index of shards."""


class WeightSource(Protocol):
    """Named tensors of a checkpoint. ``identity`` and ``describe`` read no tensor and import nothing large."""

    @abstractmethod
    def names(self) -> list[str]:
        """The names of all tensors."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""

    @abstractmethod
    def dtype(self, name: str) -> str:
        """How a tensor is stored, in the words of safetensors: ``F32``, ``BF16``, ``F16``, ``F64``, ``I64``, ..."""

    @abstractmethod
    def read(self, name: str) -> NDArray[Any]:
        """A tensor as it is stored, mapped where possible; ``BF16`` comes as the uint16 that holds its bits."""

    @abstractmethod
    def identity(self) -> str:
        """Changes whenever a file of the checkpoint does: see ``file_identity``."""

    @abstractmethod
    def describe(self) -> str:
        """The path, as messages show it."""

    def release(self, name: str) -> None:
        """Says that a tensor was read: its memory may go, and comes back where it is read again."""
        return

    def float32(self, name: str) -> NDArray[np.float32]:
        """A tensor widened to float32.

        Raises:
            WeightsError: it does not hold floating-point numbers.
        """
        return widen(self.read(name), self.dtype(name), name, self.describe())


def widen(array: NDArray[Any], dtype: str, name: str, where: str) -> NDArray[np.float32]:
    """Stored numbers as float32, without a copy where they are that already; float64 is rounded."""
    if dtype == "F32":
        return array
    if dtype == "BF16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "F16":
        return array.astype(np.float32)
    if dtype == "F64":
        with np.errstate(over="ignore"):
            return array.astype(np.float32)
    check_stored(dtype, name, where)
    raise AssertionError(f"{dtype} is not among {READ}")


def check_stored(dtype: str, name: str, where: str) -> None:
    """Refuses a tensor that ``widen`` cannot widen.

    Raises:
        WeightsError: it holds no floating-point numbers, or those of a quantized model.
    """
    if dtype not in READ:
        raise WeightsError(
            f"{where}: tensor {name!r} is stored as {dtype}, which is not read: convert it to F32, F16 or BF16, or pass"
            " the unquantized model"
        )


def file_identity(paths: Sequence[Path]) -> str:
    """Real path, size, inode, and times of each file, hashed.

    Besides the time of modification, which is often set back when a file is copied or fetched, that of the last change
    to the inode counts, which only the system sets: whatever is written in place changes it.

    Raises:
        WeightsError: a file is missing.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):  # the folder of shards without an index, in which other files may change
                continue
        except OSError as error:
            raise WeightsError(
                f"{shown(path)}: cannot be read ({error.strerror}): check the path, or fetch the file again"
            ) from None
        fields = (os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        digest.update(repr(fields).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
