"""Safetensors files, mapped in place and read without torch; the header is checked before it is believed."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bossa.errors import WeightsError, shown
from bossa.weights.kinds import UNQUANTIZED, check_head
from bossa.weights.shards import check_shards
from bossa.weights.source import MAX_TENSORS, WeightSource, file_identity

MAX_HEADER = 32 << 20
"""The largest header that is read, in bytes; the format allows three times as many. A tensor takes about 100."""
NUMPY: dict[str, type[np.generic]] = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_},
    **{"F8_E4M3": np.uint8, "F8_E5M2": np.uint8, "F8_E8M0": np.uint8, "F8_E4M3FNUZ": np.uint8},
    **{"F8_E5M2FNUZ": np.uint8, "C64": np.complex64},
}


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies in a file: byte offset from the file's start, and how to read it."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


class SafetensorsFile:
    """One mapped file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            self._refuse("is empty")
        except OSError as error:
            self._refuse(f"cannot be read ({error.strerror})")
        self.tensors = self._read_header()

    def array(self, name: str) -> NDArray[Any]:
        tensor = self.tensors[name]
        count = prod(tensor.shape)
        flat = (
            np.frombuffer(self._map, NUMPY[tensor.dtype], count, tensor.offset)
            if count
            else np.empty(0, NUMPY[tensor.dtype])
        )
        return flat.reshape(tensor.shape)

    def release(self, name: str) -> None:
        """Unmaps the memory pages that a tensor has to itself; they are mapped again where they are read again."""
        tensor = self.tensors[name]
        end = tensor.offset + prod(tensor.shape) * np.dtype(NUMPY[tensor.dtype]).itemsize
        first = -(-tensor.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        size = end // mmap.PAGESIZE * mmap.PAGESIZE - first
        if size > 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, size)

    def _refuse(self, what: str) -> NoReturn:
        raise WeightsError(f"{shown(self.path)}: {what}: fetch the file again, or pass another")

    def _read_header(self) -> dict[str, Tensor]:
        total = len(self._map)
        size = struct.unpack_from("<Q", self._map)[0] if total >= 8 else 0
        if not 2 <= size <= total - 8:
            check_head(self.path)
            if total < 8:
                self._refuse("is too short to be a safetensors file")
            if self._map[8:9] not in (b"{", b""):  # which a header begins with
                self._refuse("is not a safetensors file")
            self._refuse(f"is not a safetensors file, or is cut short: its header claims {size} bytes of {total}")
        if size > MAX_HEADER:
            self._refuse(f"has a header of {size:,} bytes, and no more than {MAX_HEADER:,} are read")
        try:
            header = json.loads(self._map[8 : 8 + size].decode("utf-8"), object_pairs_hook=_unique)
        except (ValueError, RecursionError):
            check_head(self.path)
            self._refuse("is not a safetensors file: its header is not valid JSON")
        if not isinstance(header, dict):
            self._refuse("is not a safetensors file: its header is not a JSON object")
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            self._refuse("is damaged: its __metadata__ does not map text to text")
        if len(header) > MAX_TENSORS:  # before each of them is looked at
            raise WeightsError(
                f"{shown(self.path)}: has {len(header):,} tensors, and no more than {MAX_TENSORS:,} are read"
            )
        start = 8 + size
        spans: list[tuple[int, int, str]] = []
        tensors: dict[str, Tensor] = {}
        for name, item in header.items():
            tensor, end = self._check(name, item, start)
            tensors[name] = tensor
            spans.append((tensor.offset, end, name))
        position = start
        for begin, end, name in sorted(spans):
            if begin != position:
                self._refuse(f"is damaged: tensor {name!r} overlaps another, or bytes lie between them")
            position = end
        if position != total:
            self._refuse(f"is cut short or has bytes at its end: its tensors end at {position}, the file at {total}")
        return tensors

    def _check(self, name: str, item: Any, start: int) -> tuple[Tensor, int]:
        if not isinstance(item, dict):
            self._refuse(f"is damaged: tensor {name!r} has no description")
        dtype, shape, offsets = item.get("dtype"), _sizes(item.get("shape")), _sizes(item.get("data_offsets"))
        if not isinstance(dtype, str) or dtype not in NUMPY:
            stored = shown(str(dtype)[:20])
            raise WeightsError(
                f"{shown(self.path)}: holds tensor {name!r} as {stored}, which is not read: {UNQUANTIZED}"
            )
        if shape is None or len(shape) > 32:
            self._refuse(f"is damaged: tensor {name!r} has no valid shape")
        if offsets is None or len(offsets) != 2:
            self._refuse(f"is damaged: tensor {name!r} has no valid offsets")
        begin, end = offsets
        if end - begin != prod(shape) * np.dtype(NUMPY[dtype]).itemsize:
            self._refuse(f"is damaged: tensor {name!r} has {end - begin} bytes, not those of its shape")
        return Tensor(dtype, shape, start + begin), start + end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is there twice")
    return result


def _sizes(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, list) and all(type(item) is int and 0 <= item < 2**62 for item in value):
        return tuple(value)
    return None


class SafetensorsSource(WeightSource):
    """One file, or the shards of an index. Headers are read when first asked for."""

    def __init__(self, files: Sequence[Path], path: Path, weight_map: Mapping[str, str] | None = None) -> None:
        self._paths = list(files)
        self._path = path
        self._weight_map = weight_map
        self._homes: dict[str, SafetensorsFile] | None = None

    def _open(self) -> dict[str, SafetensorsFile]:
        if self._homes is None:
            opened: list[SafetensorsFile] = []
            count = 0
            for path in self._paths:
                opened.append(SafetensorsFile(path))
                count += len(opened[-1].tensors)
                if count > MAX_TENSORS:
                    raise WeightsError(
                        f"{self.describe()}: has {count:,} tensors, and no more than {MAX_TENSORS:,} are read"
                    )
            folder = self._path.parent
            check_shards(
                {file.path.relative_to(folder).as_posix(): file.tensors for file in opened},
                self._weight_map,
                self._path,
            )
            self._homes = {name: file for file in opened for name in file.tensors}
        return self._homes

    def names(self) -> list[str]:
        return list(self._open())

    def shape(self, name: str) -> tuple[int, ...]:
        return self._open()[name].tensors[name].shape

    def dtype(self, name: str) -> str:
        return self._open()[name].tensors[name].dtype

    def read(self, name: str) -> NDArray[Any]:
        return self._open()[name].array(name)

    def release(self, name: str) -> None:
        self._open()[name].release(name)

    def identity(self) -> str:
        return file_identity([self._path, *self._paths])

    def describe(self) -> str:
        return shown(self._path)
