"""The weights of a session as a checkpoint for the native program."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bossa.samba.sections.device import Device
from bossa.weights.source import WeightSource
from bossa.weights.torch_file import dtype_name, to_numpy


class DeviceWeights(WeightSource):
    """Parameters and buffers of a session, as they are when they are read."""

    def __init__(self, device: Device) -> None:
        self._tensors: Mapping[str, torch.Tensor] = {**device.parameters, **device.buffers}

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> str:
        return dtype_name(self._tensors[name])

    def read(self, name: str) -> NDArray[Any]:
        return to_numpy(self._tensors[name], name, self.describe())

    def identity(self) -> str:
        raise NotImplementedError("nothing tells the weights of a session apart, so they are not cached")

    def describe(self) -> str:
        return "the session's weights"


def versions_of(device: Device) -> list[tuple[int, int]]:
    """Changes whenever one of the tensors does: each by itself and by torch's count of writes to it."""
    held = [*device.parameters.values(), *device.buffers.values()]
    return [(device.sent, 0), *((id(tensor), tensor._version) for tensor in held)]


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """SHA-256 of the tensors' types, shapes and bytes."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
        flat = tensor.detach().as_subclass(torch.Tensor).contiguous().flatten()
        total.update(np.asarray(flat.view(torch.uint8).numpy()).tobytes())
    return total.hexdigest()
