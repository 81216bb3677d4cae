"""Adapters as files, made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}


def write_adapter(folder: Path, tensors: dict[str, NDArray[Any]], **config: Any) -> Path:
    """An adapter of these tensors, by their whole names."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def factors(module: str, n: int = 4, k: int = 3, rank: int = 2, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """The two tensors of a pair."""
    rng = np.random.default_rng(seed)
    return {
        f"base_model.model.{module}.lora_A.weight": rng.standard_normal((rank, k)).astype(np.float32),
        f"base_model.model.{module}.lora_B.weight": rng.standard_normal((n, rank)).astype(np.float32),
    }
