"""`open_weights` finds the files of a checkpoint, and what reads them; nothing is read until it is asked for."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from bossa.errors import WeightsError, shown
from bossa.weights.source import ENDINGS, INDEX, PARTS, SAFETENSORS, TORCH, TORCH_ENDINGS, WeightSource


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
        f"{shown(path)}: not a kind of weights that can be read: pass .safetensors, .pt, .pth, .bin or .gguf"
    )
