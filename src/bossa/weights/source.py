"""Where weights come from: `open_weights` finds the files of a checkpoint; nothing is read until it is asked for."""

from __future__ import annotations

import hashlib
import os
import stat
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bossa.checks.shown import shown
from bossa.errors import WeightsError

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


def open_weights(path: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None) -> WeightSource:
    """Opens the weights of a model.

    Args:
        path: a directory, a ``.safetensors``, ``.pt``, ``.pth``, ``.bin`` or ``.gguf`` file, an index of shards
            (``*.index.json``), or the id of a model on the Hugging Face hub. A model that lies whole in the local
            hub cache is taken from there, and the hub is not asked.
        cache_dir: the hub cache to use instead of the usual one.

    Raises:
        ModelError: there is no such model or file.
        WeightsError: the files found are not weights that can be read.
    """
    place = Path(path)
    try:
        status = place.stat()
    except (OSError, ValueError):  # not there, or no path at all
        status = None
    if status is not None and stat.S_ISDIR(status.st_mode):
        return _open_directory(place)
    if status is not None and stat.S_ISREG(status.st_mode):
        return _open_file(place)
    if status is not None:
        raise WeightsError(f"{shown(place)}: is a pipe or a device: pass a file or a directory")
    from bossa.weights.hub import find_model

    return _open_directory(find_model(os.fspath(path), cache_dir))


def _open_directory(folder: Path) -> WeightSource:
    for part in PARTS:
        for name in (part, part + INDEX):
            if (folder / name).is_file():
                return _open_file(folder / name)
    from bossa.weights.kinds import check_regular, describe_folder, is_training_state
    from bossa.weights.shards import numbered_shards

    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise WeightsError(f"{shown(folder)}: cannot be read ({error.strerror}): check its permissions") from None
    if shards := numbered_shards(folder, names):
        for shard in shards:
            check_regular(shard)
        return _open_files(shards, folder, None)
    for part in PARTS:
        for name in (part, part + INDEX):
            check_regular(folder / name)
    if (what := describe_folder(folder, names)) is not None:
        raise WeightsError(f"{shown(folder)}: {what}")
    found = [shown(name) for name in names if name.endswith(ENDINGS) and not is_training_state(name)]
    hint = f"pass one of its files by name ({', '.join(found[:4])})" if found else "pass a directory that has one"
    raise WeightsError(f"{shown(folder)}: has no {SAFETENSORS} and no {TORCH}, nor an index of either: {hint}")


def _open_file(path: Path) -> WeightSource:
    if path.name.endswith(INDEX):
        from bossa.weights.shards import read_index

        shards = read_index(path)
        return _open_files(shards.files, path, shards.weight_map)
    if "-of-" in path.name:
        from bossa.weights.shards import describe_shard

        if (what := describe_shard(path)) is not None:
            raise WeightsError(f"{shown(path)}: {what}")
    return _open_files([path], path, None)


def _open_files(files: Sequence[Path], path: Path, weight_map: Mapping[str, str] | None) -> WeightSource:
    names = [file.name for file in files]
    if all(name.endswith(".safetensors") for name in names):
        from bossa.weights.safetensors_file import SafetensorsSource

        return SafetensorsSource(files, path, weight_map)
    from bossa.weights.kinds import check_head, describe_name

    if (what := describe_name(names[0])) is not None:
        raise WeightsError(f"{shown(files[0])}: {what}")
    if all(name.endswith(TORCH_ENDINGS) for name in names):
        from bossa.weights.torch_file import TorchSource

        return TorchSource(files, path, weight_map)
    if len(files) == 1 and names[0].endswith(".gguf"):
        from bossa.weights.gguf_file import GgufSource

        return GgufSource(path)
    check_head(files[0])
    raise WeightsError(
        f"{shown(path)}: not a kind of weights that is read: pass .safetensors, .pt, .pth, .bin or .gguf"
    )
