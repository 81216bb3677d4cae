"""Safetensors files and indices of shards."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from bossa.weights.open import open_weights
from bossa.weights.source import WeightSource
from fuzz.json_mutations import mutate_json
from fuzz.mutations import NUMBERS, mutate_bytes
from fuzz.reader import demand

DTYPES = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8, "I64": 8, "U8": 1, "BOOL": 1, "F8_E4M3": 1}


def file_of(header: str, data: bytes, length: int | None = None) -> bytes:
    raw = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def small(names: Sequence[str], dtypes: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> bytes:
    """A file of tensors of these names, dtypes and shapes, full of numbered bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape in zip(names, dtypes, shapes, strict=True):
        size = prod(shape) * DTYPES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    return file_of(json.dumps(header), bytes(number % 2 for number in range(position)))


def check_tensors(source: WeightSource) -> None:
    """Every tensor has the shape and the bytes that are promised."""
    for name in source.names():
        array = source.read(name)
        demand(tuple(array.shape) == source.shape(name), "a tensor has another shape than it says")
        if source.dtype(name) in ("F32", "F16", "BF16"):
            wide = source.float32(name)
            demand(wide.dtype == np.float32 and wide.shape == array.shape, "a widened tensor has another shape")
        source.release(name)


class SafetensorsReader:
    """One file, by `open_weights`."""

    def seeds(self) -> list[bytes]:
        names = ["model.embed.weight", "model.norm.weight", "lm_head.weight", "empty", "scalar"]
        shapes = [(7, 4), (4,), (2, 3, 2), (0, 5), ()]
        return [
            small(names, ["F32", "BF16", "F16", "F32", "F64"], shapes),
            small(names, list(DTYPES)[3:], shapes),
            file_of("{}", b""),
        ]

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        data = chance.choice(bases)
        size = int.from_bytes(data[:8], "little")
        if size > len(data) - 8 or chance.random() < 0.15:
            return mutate_bytes(chance, data, bases)
        header, tail = data[8 : 8 + size].decode("utf-8", "replace"), data[8 + size :]
        roll = chance.random()
        if roll < 0.75:
            header = mutate_json(chance, header)
        elif roll < 0.85:
            tail = tail[: chance.randrange(len(tail) + 1)] if chance.random() < 0.5 else tail + bytes(8)
        elif roll < 0.95:
            header = many(chance, len(tail))
        else:
            return file_of(header, tail, chance.choice(NUMBERS) % 2**64)
        return file_of(header, tail)

    def passes(self, data: bytes) -> bool:
        size = int.from_bytes(data[:8], "little")
        return len(data) >= 8 + size and is_object(data[8 : 8 + size])

    def read(self, data: bytes, folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(data)
        source = open_weights(path)
        source.identity()
        names = source.names()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        demand(sorted(names) == sorted(set(header) - {"__metadata__"}), "other tensors than the header's are found")
        check_tensors(source)
        for name in names:
            begin, end = header[name]["data_offsets"]
            held = source.read(name).tobytes()
            demand(held == data[8 + size + begin : 8 + size + end], "a tensor has other bytes than the file")


def many(chance: random.Random, total: int) -> str:
    """A header of many tensors without elements, before one that has all the bytes."""
    count = chance.choice((10, 1_000, 5_000))
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    header = {f"t{number}": empty for number in range(count)}
    header["all"] = {"dtype": "U8", "shape": [total], "data_offsets": [0, total]}
    return json.dumps(header)


def is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


class IndexReader:
    """``model.safetensors.index.json`` beside two shards."""

    def seeds(self) -> list[bytes]:
        held = {"a": "x-1.safetensors", "b": "x-1.safetensors", "c": "sub/x-2.safetensors"}
        return [json.dumps({"metadata": {"total_size": 8}, "weight_map": held}).encode()]

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        data = chance.choice(bases)
        if chance.random() < 0.1:
            return mutate_bytes(chance, data, bases)
        return mutate_json(chance, data.decode("utf-8", "replace")).encode("utf-8", "surrogatepass")

    def passes(self, data: bytes) -> bool:
        return is_object(data)

    def read(self, data: bytes, folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "x-1.safetensors").write_bytes(small(["a", "b"], ["F32", "F16"], [(2,), (3,)]))
        (folder / "sub" / "x-2.safetensors").write_bytes(small(["c"], ["F32"], [(1,)]))
        (folder / "model.safetensors.index.json").write_bytes(data)
        source = open_weights(folder)
        source.identity()
        demand(set(source.names()) <= {"a", "b", "c"}, "tensors are found that no shard has")
        check_tensors(source)
