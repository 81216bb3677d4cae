"""Torch state dicts (`.pt`, `.pth`, `.bin`), read with `weights_only`: a pickle with code in it is refused."""

from __future__ import annotations

import mmap
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.errors import WeightsError, shown
from bossa.weights.kinds import check_head
from bossa.weights.shards import check_shards
from bossa.weights.source import WeightSource, file_identity
from bossa.weights.torch_pickle import BEGIN, Excess, check_torch_file

WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which training scripts put the state dict beside other things."""

REPEATED = 1 << 24
"""Numbers that a tensor may have where its file has fewer bytes, since it repeats what it holds."""


class TorchSource(WeightSource):
    """One state dict, or the shards of an index. Torch is imported and the files are read when first asked for."""

    def __init__(self, files: Sequence[Path], path: Path, weight_map: Mapping[str, str] | None = None) -> None:
        self._paths = list(files)
        self._path = path
        self._weight_map = weight_map
        self._tensors: dict[str, Any] | None = None

    def _open(self) -> dict[str, Any]:
        if self._tensors is None:
            held = {path.relative_to(self._path.parent).as_posix(): load_state_dict(path) for path in self._paths}
            check_shards(held, self._weight_map, self._path)
            self._tensors = {name: tensor for state in held.values() for name, tensor in state.items()}
        return self._tensors

    def names(self) -> list[str]:
        return list(self._open())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._open()[name].shape)

    def dtype(self, name: str) -> str:
        return dtype_name(self._open()[name])

    def read(self, name: str) -> NDArray[Any]:
        return to_numpy(self._open()[name], name, self.describe())

    def identity(self) -> str:
        return file_identity([self._path, *self._paths])

    def describe(self) -> str:
        return shown(self._path)


def load_state_dict(path: Path) -> dict[str, Any]:
    """The tensors of a torch file by name, mapped where the file allows it.

    Raises:
        WeightsError: torch is not installed, or the file holds code, is damaged, or is not a state dict.
    """
    head = check_head(path, own=(b"PK\x03\x04", b"\x80"))
    try:
        import torch
    except ImportError:
        raise WeightsError(
            f"{shown(path)}: reading torch files needs torch: install bossa[compile], or convert the file to"
            " safetensors"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_torch_file(path)
            if head.startswith(BEGIN[0]):
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            else:  # the format before torch 1.6, which torch cannot map; a read of a mapping ends where the file does
                with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    loaded = torch.load(data, map_location="cpu", weights_only=True)
    except Excess as error:
        raise WeightsError(
            f"{shown(path)}: is not a torch state dict, or is damaged (it asks for {error}, and has"
            f" {path.stat().st_size:,} bytes): fetch it again"
        ) from None
    except pickle.UnpicklingError as error:
        raise _refused(path, head, error) from None
    except OSError as error:
        raise WeightsError(f"{shown(path)}: cannot be read ({error.strerror}): check the file's permissions") from None
    except Exception as error:  # a damaged pickle fails in whatever way its bytes lead to
        reason = shown((str(error).splitlines() or [type(error).__name__])[0][:100])
        raise WeightsError(
            f"{shown(path)}: is not a torch state dict, or is damaged ({reason}): fetch it again"
        ) from None
    tensors = {name: tensor.detach() for name, tensor in _unwrap(loaded, path).items() if torch.is_tensor(tensor)}
    size = path.stat().st_size
    for name, tensor in tensors.items():
        if tensor.numel() > max(size, REPEATED):
            raise WeightsError(
                f"{shown(path)}: tensor {name!r} has {tensor.numel():,} numbers, and the file {size:,} bytes: save the"
                " tensor as contiguous"
            )
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.device.type != "cpu":
            raise WeightsError(
                f"{shown(path)}: tensor {name!r} is sparse, quantized, nested or has no data: save it as a dense tensor"
            )
    return tensors


def _refused(path: Path, head: bytes, error: pickle.UnpicklingError) -> WeightsError:
    text = str(error)
    if head.startswith((b"PK", b"\x80")) and ("Unsupported" in text or "GLOBAL" in text):
        return WeightsError(
            f"{shown(path)}: is a pickle that could run code when it is loaded, so it is not: save the state dict"
            " alone, or as safetensors"
        )
    return WeightsError(f"{shown(path)}: is not a torch state dict, or is damaged: fetch it again")


def _unwrap(loaded: Any, path: Path) -> Mapping[str, Any]:
    import torch

    for _ in range(4):
        if not isinstance(loaded, Mapping):
            break
        inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            if all(isinstance(name, str) for name in loaded) and any(map(torch.is_tensor, loaded.values())):
                return loaded
            break
        loaded = inner
    raise WeightsError(
        f"{shown(path)}: holds no state dict (a mapping from names to tensors, alone or under"
        f" {', '.join(WRAPPERS)}): save model.state_dict()"
    )


def dtype_name(tensor: Any) -> str:
    """A tensor's dtype in the words of safetensors."""
    name = str(tensor.dtype).removeprefix("torch.")
    known = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16"}
    return known.get(name, name)


def to_numpy(tensor: Any, name: str, where: str) -> NDArray[Any]:
    """The tensor's memory as an array; bfloat16 as the uint16 that holds its bits."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise WeightsError(f"{where}: tensor {name!r} is sparse, quantized or has no data: save it as a dense tensor")
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy()).view(np.uint16)
    return np.asarray(tensor.numpy())
