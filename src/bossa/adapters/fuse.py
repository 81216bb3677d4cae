"""``bossa fuse``: a checkpoint with an adapter merged into it, in Hugging Face's layout, without torch."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from os import PathLike, fspath
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bossa.adapters.match import renamed
from bossa.adapters.pair import Floats, Pair
from bossa.adapters.read import Adapter, read
from bossa.errors import AdapterError, shown
from bossa.host.files import create_beside, put_in_place, sync_folder
from bossa.weights.names import listed
from bossa.weights.source import INDEX, SAFETENSORS, WeightSource

SHARD_BYTES = 5_000_000_000
"""Of a file of weights, where there are several: as transformers writes them."""
BESIDE = (".json", ".jinja", ".txt", ".model", ".py", ".tiktoken", ".bpe", ".spm", ".vocab", ".md")
"""Endings of files that belong to a model besides its weights: config, tokenizer, template, code."""
HEADS = ("lm_head", "embed_out", "output")
"""What the last module of a model is called, which may be tied to its embedding."""
STORED: dict[str, tuple[int, Callable[[Floats], NDArray[Any]]]] = {
    "F32": (4, lambda x: x),
    "F64": (8, lambda x: x.astype(np.float64)),
    "F16": (2, lambda x: x.astype(np.float16)),
    "BF16": (2, lambda x: _bf16(x)),
}
"""Bytes of a number, and what is stored of float32, rounded to nearest."""

Progress = Callable[[int, int], None]
"""Called with the tensors written so far and all of them."""


def fuse(
    model: str | PathLike[str],
    adapter: str | PathLike[str],
    output: str | PathLike[str],
    *,
    cache_dir: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a model's checkpoint with ``W + up @ down`` in place of each adapted W, and its other files beside it.

    Numbers are added in float32 and stored as the checkpoint stores them. The folder appears when it is whole.

    Args:
        model: a directory in Hugging Face's layout, or a name on its hub.
        adapter: the folder of a LoRA adapter in PEFT's format.
        output: the folder to make; it must not be there, or be empty.

    Returns:
        That folder.

    Raises:
        AdapterError: the adapter cannot be read or does not fit the checkpoint, or the folder is not to be written.
        ModelError, WeightsError: the checkpoint cannot be read.
    """
    from bossa.weights.hub import find_model
    from bossa.weights.open import open_weights

    target = Path(os.path.abspath(fspath(output)))
    _check_free(target)
    loaded = read(adapter)
    folder = Path(fspath(model))
    if not folder.exists():
        folder = find_model(fspath(model), cache_dir)
    if not folder.is_dir():
        raise AdapterError(f"{shown(folder)}: is no folder of a model in Hugging Face's layout: pass one")
    source = open_weights(folder)
    merged = _merged(loaded, source, _ties(folder))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as made:
            place = Path(made)
            place.chmod(0o777 & ~_umask())
            for file in sorted(folder.iterdir()):
                if file.is_file() and file.suffix in BESIDE and not file.name.endswith(INDEX):
                    shutil.copyfile(file, place / file.name)
            _write(source, merged, place, progress)
            sync_folder(place)
            os.rename(place, target)
            place.mkdir()  # for the end of the block to remove
    except OSError as error:
        raise AdapterError(f"{shown(target)}: cannot be written ({error.strerror}): choose another folder") from None
    sync_folder(target.parent)
    return target


def _umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now


def _check_free(target: Path) -> None:
    try:
        taken = any(target.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise AdapterError(f"{shown(target)}: cannot be written ({error.strerror}): choose another folder") from None
    if taken:
        raise AdapterError(f"{shown(target)}: holds files already: choose a folder that is not there yet")


def _ties(folder: Path) -> bool:
    """Whether the model's config ties its head to its embedding."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        return bool(config.get("tie_word_embeddings", False))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _merged(adapter: Adapter, source: WeightSource, tied: bool) -> dict[str, tuple[Pair, bool]]:
    """By tensor of the checkpoint, the pair to add, and whether its product is to be transposed."""
    names = renamed(adapter.pairs, source.names())
    held = set(source.names())
    unknown = [module for module, tensor in names.items() if tensor not in held]
    if unknown:
        raise AdapterError(
            f"{adapter.where}: adapts {len(unknown)} of {len(names)} modules that {source.describe()} has no matrix of"
            f" ({listed(unknown)}): pass the model that it was made for"
        )
    if tied and (heads := [module for module in names if module.split(".")[-1] in HEADS]):
        raise AdapterError(
            f"{adapter.where}: adapts {listed(heads)}, which the model's config ties to its embedding, so that both"
            " would change: run it unmerged, by bossa run --adapter"
        )
    shapes = {module: (len(pair.up), pair.down.shape[1]) for module, pair in adapter.pairs.items()}
    stored = {module: tuple(source.shape(tensor)) for module, tensor in names.items()}
    for module, (n, k) in shapes.items():
        if stored[module] not in ((n, k), (k, n)):
            raise AdapterError(
                f"{adapter.where}: adapts {listed([module])} as a matrix of {n} by {k}, and"
                f" {source.describe()} has {list(stored[module])}: pass the model that it was made for"
            )
    # A square matrix lies as the others do.
    oblong = [stored[module] == (k, n) for module, (n, k) in shapes.items() if n != k]
    across = all(oblong) if oblong else adapter.transposed
    return {
        names[module]: (pair, across if shapes[module][0] == shapes[module][1] else stored[module] != shapes[module])
        for module, pair in adapter.pairs.items()
    }


def _write(
    source: WeightSource, merged: Mapping[str, tuple[Pair, bool]], folder: Path, progress: Progress | None
) -> None:
    names = source.names()
    shards = list(_shards(source, names))
    weight_map: dict[str, str] = {}
    done = 0
    for number, shard in enumerate(shards, 1):
        file = SAFETENSORS
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(shard, file)
        beside, descriptor = create_beside(folder / file)
        with os.fdopen(descriptor, "w+b") as out:
            out.write(_header(source, shard))
            for name in shard:
                _put(out, source, name, merged.get(name))
                source.release(name)
                done += 1
                if progress is not None:
                    progress(done, len(names))
            out.flush()
            put_in_place(beside, folder / file, out.fileno())
    if len(shards) > 1:
        total = sum(_bytes(source, name) for name in names)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / (SAFETENSORS + INDEX)).write_text(json.dumps(index, indent=2) + "\n")


def _shards(source: WeightSource, names: Sequence[str]) -> Iterator[list[str]]:
    shard: list[str] = []
    size = 0
    for name in names:
        if shard and size + _bytes(source, name) > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += _bytes(source, name)
    yield shard


def _bytes(source: WeightSource, name: str) -> int:
    stored = source.dtype(name)
    size = STORED[stored][0] if stored in STORED else source.read(name).itemsize
    return prod(source.shape(name)) * size


def _header(source: WeightSource, names: Sequence[str]) -> bytes:
    """The header of a safetensors file, padded so that numbers begin at a multiple of 8."""
    fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name in names:
        end = position + _bytes(source, name)
        fields[name] = {
            "dtype": source.dtype(name),
            "shape": list(source.shape(name)),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _put(out: BinaryIO, source: WeightSource, name: str, merge: tuple[Pair, bool] | None) -> None:
    if merge is None:
        out.write(np.ascontiguousarray(source.read(name)).tobytes())
        return
    pair, across = merge
    before = source.float32(name)
    product = pair.up @ pair.down  # [N, K]
    with np.errstate(over="ignore"):
        after = STORED[source.dtype(name)][1](before + (product.T if across else product))
    if np.isfinite(before).all() and not _is_finite(after):
        raise AdapterError(
            f"{source.describe()}: {shown(name)!r} with the adapter does not fit {source.dtype(name)}: fuse with a"
            " checkpoint in F32 or BF16"
        )
    out.write(np.ascontiguousarray(after).tobytes())


def _is_finite(stored: NDArray[Any]) -> bool:
    if stored.dtype == np.uint16:  # bf16
        return bool(((stored & 0x7F80) != 0x7F80).all())
    return bool(np.isfinite(stored).all())


def _bf16(x: Floats) -> NDArray[np.uint16]:
    """The upper halves of float32, rounded to nearest, halves to even."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
