"""LoRA adapters as PEFT writes them, with factors that matter."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch


def make_adapter(model: torch.nn.Module, folder: Path, *, seed: int = 0, **config: Any) -> torch.nn.Module:
    """Save an adapter of a model, and give the model with it; the model itself stays as it is.

    Args:
        config: as ``peft.LoraConfig`` takes it.
    """
    import peft

    torch.manual_seed(seed)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**settings | config)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    adapted.save_pretrained(folder)
    return adapted
