"""LoRA: a low-rank pair beside a linear that stays as it is ([Hu et al. 2021](https://arxiv.org/abs/2106.09685)).

The adapter is written as PEFT writes it, and reads into it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from bossa.errors import TrainError, shown

PREFIX = "base_model.model."
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class LoraSettings:
    """Of all pairs of an adapter: rank, alpha (the pair is scaled by alpha / rank) and dropout before it."""

    rank: int
    alpha: float
    dropout: float


class LoraLinear(nn.Module):
    """``base(x) + scale · B A dropout(x)``; A is ``[rank, in]``, B ``[out, rank]`` and zero at first."""

    def __init__(self, base: nn.Module, settings: LoraSettings) -> None:
        super().__init__()
        inputs, outputs = sizes_of(base)
        self.base = base
        self.rate = settings.dropout
        self.scale = settings.alpha / settings.rank
        self.lora_A = nn.Parameter(torch.empty(settings.rank, inputs))
        self.lora_B = nn.Parameter(torch.zeros(outputs, settings.rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as PEFT does

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[…, in]`` → ``[…, out]``."""
        out = self.base(x)
        narrow = functional.linear(functional.dropout(x, self.rate, self.training), self.lora_A.to(x.dtype))
        return out + functional.linear(narrow, (self.scale * self.lora_B).to(narrow.dtype)).to(out.dtype)

    @property
    def weight(self) -> torch.Tensor:
        """Of the base, for models that look at it."""
        return self.base.weight


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a matrix product: torch's linear or transformers' transposed one."""
    return isinstance(module, nn.Linear | Conv1D)


def sizes_of(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear."""
    rows, columns = module.weight.shape
    return (rows, columns) if isinstance(module, Conv1D) else (columns, rows)


def find_targets(model: nn.Module, named: Sequence[str]) -> list[str]:
    """The linears that get a pair: all but the head, or those whose name ends in one of ``named``.

    Raises:
        TrainError: there is none, or a name finds none.
    """
    head = model.get_output_embeddings()
    linears = {name: module for name, module in model.named_modules() if is_linear(module)}
    if not named:
        found = [name for name, module in linears.items() if module is not head]
        if not found:
            raise TrainError(f"{type(model).__name__} has no linears that an adapter could go beside: train it in full")
        return found
    for wanted in named:
        if not any(_is_called(name, wanted) for name in linears):
            endings = sorted({name.rpartition(".")[2] for name in linears})
            raise TrainError(
                f"--lora-targets: no linear is called {shown(wanted)}; the model has {', '.join(endings)}: name some"
            )
    return [name for name in linears if any(_is_called(name, wanted) for wanted in named)]


def _is_called(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def add_pairs(model: nn.Module, targets: Sequence[str], settings: LoraSettings) -> None:
    """Put a pair beside each target, in place; nothing else takes gradients any more."""
    model.requires_grad_(False)
    for name in targets:
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], LoraLinear(model.get_submodule(name), settings))


def pairs(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """All pairs by the name of their linear."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear))


def adapter_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The adapter's weights in fp32, by PEFT's names."""
    tensors = {}
    for name, pair in pairs(model):
        for letter, weight in (("A", pair.lora_A), ("B", pair.lora_B)):
            tensors[f"{PREFIX}{name}.lora_{letter}.weight"] = weight.detach().float().contiguous()
    return tensors


def adapter_config(model: nn.Module, base: str, settings: LoraSettings) -> str:
    """``adapter_config.json`` of PEFT."""
    config = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": any(isinstance(pair.base, Conv1D) for _, pair in pairs(model)),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": settings.rank,
        "target_modules": _target_names(model),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _target_names(model: nn.Module) -> list[str]:
    """Last names of the targets where these find no other linear, else whole ones."""
    chosen = {name for name, _ in pairs(model)}
    endings = {name.rpartition(".")[2] for name in chosen}
    others = [name for name, module in model.named_modules() if is_linear(module) and not name.endswith(".base")]
    if any(name.rpartition(".")[2] in endings for name in others):
        return sorted(chosen)
    return sorted(endings)


def load_adapter(model: nn.Module, folder: Path) -> None:
    """Give the pairs of a model the weights of an adapter in PEFT's format.

    Raises:
        TrainError: it is for other modules, or of another rank.
    """
    from safetensors.torch import load_file

    tensors = load_file(folder / WEIGHTS)
    for name, pair in pairs(model):
        for letter, weight in (("A", pair.lora_A), ("B", pair.lora_B)):
            given = tensors.pop(f"{PREFIX}{name}.lora_{letter}.weight", None)
            if given is None or given.shape != weight.shape:
                what = "nothing" if given is None else f"{list(given.shape)}"
                raise TrainError(f"{shown(folder)}: has {what} for {name}, where {list(weight.shape)} is needed")
            weight.data.copy_(given)
    if tensors:
        raise TrainError(f"{shown(folder)}: has weights for {next(iter(tensors))}, which the model has no place for")
