"""GGUF files, dequantized by transformers' own loader, so that the weights are the ones that it would run."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bossa.errors import WeightsError, shown
from bossa.weights.gguf_header import Held, check_gguf
from bossa.weights.kinds import check_head
from bossa.weights.source import WeightSource, file_identity
from bossa.weights.torch_file import dtype_name, to_numpy

MAGIC = b"GGUF"
FEWEST, SMALL = 4, 1 << 16
"""A file has the numbers of its model but for a part of them, or for a few."""


class GgufSource(WeightSource):
    """One GGUF file. Transformers is imported and the file dequantized when a tensor is first asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tensors: dict[str, Any] | None = None

    def _open(self) -> dict[str, Any]:
        if self._tensors is None:
            self._tensors = load_gguf(self._path)
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
        return file_identity([self._path])

    def describe(self) -> str:
        return shown(self._path)


def load_gguf(path: Path) -> dict[str, Any]:
    """The tensors of the file in float32, under transformers' names.

    Raises:
        WeightsError: transformers or gguf is not installed, the file is damaged, or transformers cannot read its
            architecture.
    """
    try:
        import gguf  # noqa: F401  transformers needs it
        import torch
        import transformers
    except ImportError:
        raise WeightsError(
            f"{shown(path)}: reading GGUF files needs torch, transformers and gguf: install bossa[compile], or convert"
            " the model to safetensors"
        ) from None
    held = check_file(path)
    place = {"gguf_file": path.name, "local_files_only": True}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the loader draws progress bars of its own
            config = transformers.AutoConfig.from_pretrained(path.parent, **place)
            _check_size(path, config, held)
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                path.parent,
                config=config,
                dtype=torch.float32,
                quantization_config=transformers.GgufConfig(dequantize=True),
                output_loading_info=True,
                **place,
            )
    except WeightsError:
        raise
    except Exception as error:  # the loader raises whatever its parser meets
        reason = shown((str(error).splitlines() or [type(error).__name__])[0][:120])
        raise WeightsError(
            f"{shown(path)}: transformers cannot read this GGUF file ({reason}): pass safetensors"
        ) from None
    # What the file lacks, or has in another shape, was made up.
    absent = {*report["missing_keys"], *(key if isinstance(key, str) else key[0] for key in report["mismatched_keys"])}
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if name not in absent}


def check_file(path: Path) -> Held | None:
    """Refuses a file that is no GGUF file, or one that is damaged. The package gguf is needed.

    Raises:
        WeightsError: it is.
    """
    import gguf

    if not check_head(path, own=(MAGIC,)).startswith(MAGIC):
        raise WeightsError(f"{shown(path)}: is not a GGUF file: pass another, or fetch it again")
    return check_gguf(path, {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()})


def _check_size(path: Path, config: Any, held: Held | None) -> None:
    """Refuses metadata of a model that is far larger than what the file holds: all the rest would be made up."""
    import torch
    import transformers

    if held is None:
        return
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    if numbers > FEWEST * held.numbers + SMALL:
        raise WeightsError(
            f"{shown(path)}: is damaged: its metadata describe a model of {numbers:,} numbers, and it holds"
            f" {held.numbers:,}: fetch the file again, or pass another"
        )
