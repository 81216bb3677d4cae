"""The model to train: found, read in fp32, and made ready."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from bossa.errors import ModelError, TrainError, shown
from bossa.frontend import sources
from bossa.frontend.quiet import quiet
from bossa.frontend.reasons import one_line
from bossa.train.lora import LoraSettings, add_pairs, find_targets, pairs
from bossa.train.settings import Settings

BF16_WORDS = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True)
class Loaded:
    """A model and where it came from."""

    model: Any
    source: sources.ModelSource
    lora: LoraSettings | None

    @property
    def base(self) -> str:
        """What an adapter says that it is for."""
        return self.source.location[0] if self.source.location is not None else self.source.name

    def tokenizer_files(self, folder: Path) -> dict[str, bytes]:
        """The tokenizer's files by name, where the model has one; ``folder`` is for what is made on the way."""
        return self.source.tokenizer_files(folder)


def load(settings: Settings) -> Loaded:
    """The model in fp32, with pairs where they are asked for.

    Raises:
        ModelError: there is no such model, or it is quantized.
        TrainError: it is a GGUF file, or its weights are another architecture's.
    """
    source = sources.find(settings.model, settings.config_name, settings.cache_dir, settings.trust_remote_code)
    name = shown(settings.model or settings.config_name)
    if source.location is not None and "gguf_file" in source.location[1]:
        raise TrainError(f"{name}: a GGUF file's weights are quantized: train the model that it was made from")
    torch.manual_seed(settings.seed)
    model = _read(source, name) if source.location is not None else _make(source, name)
    if settings.dropout is not None:
        set_dropout(model, settings.dropout)
    lora = None
    if settings.lora_rank is not None:
        alpha = 2.0 * settings.lora_rank if settings.lora_alpha is None else settings.lora_alpha
        lora = LoraSettings(settings.lora_rank, alpha, settings.lora_dropout)
        torch.manual_seed(settings.seed)
        add_pairs(model, find_targets(model, settings.lora_targets), lora)
    return Loaded(model, source, lora)


def _make(source: sources.ModelSource, name: str) -> Any:
    try:
        with quiet():
            return AutoModelForCausalLM.from_config(source.config, dtype=torch.float32)
    except Exception as error:
        raise ModelError(f"{name}: the model cannot be built ({one_line(error)})") from error


def _read(source: sources.ModelSource, name: str) -> Any:
    assert source.location is not None
    place, arguments = source.location
    logging.disable_progress_bar()
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(
                place, config=source.config, dtype=torch.float32, output_loading_info=True, **arguments
            )
    except Exception as error:  # whatever transformers raises for files that it cannot read
        raise ModelError(f"{name}: its weights cannot be read ({one_line(error)})") from error
    mismatched = [entry[0] if isinstance(entry, tuple) else entry for entry in info.get("mismatched_keys", ())]
    for what, keys in (("lacks", info.get("missing_keys", ())), ("has another shape of", mismatched)):
        if keys:
            raise TrainError(
                f"{name}: the checkpoint {what} {sorted(map(str, keys))[0]}, one of {len(keys)}: it is of another"
                f" architecture than its config says ({type(model).__name__}); give the config that belongs to it"
            )
    return model


def set_dropout(model: nn.Module, rate: float) -> None:
    """One rate for every dropout of a model, attention's too."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name, value in vars(module).items():
            if isinstance(value, float) and name.endswith("dropout"):
                setattr(module, name, rate)


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 by instructions of its own."""
    try:
        return any(word in Path("/proc/cpuinfo").read_text(encoding="utf-8") for word in BF16_WORDS)
    except OSError:
        return False


def round_frozen(model: nn.Module) -> None:
    """Keep what takes no gradients in bf16; the weights of pairs stay in fp32."""
    kept = {id(weight) for _, pair in pairs(model) for weight in (pair.lora_A, pair.lora_B)}
    for parameter in model.parameters():
        if id(parameter) not in kept and parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)
