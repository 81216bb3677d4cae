"""AdamW in three groups, and the learning rate of each step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

SCHEDULES = ("constant", "cosine", "linear")


def make_optimizer(model: Any, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over what takes gradients: embeddings, weights with decay, and biases and norms without.

    Embeddings decay no more than norms do: rows of rare tokens would only shrink.
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[str, list[nn.Parameter]] = {"embeddings": [], "weights": [], "others": []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            if id(parameter) in embeddings:
                groups["embeddings"].append(parameter)
            else:
                groups["weights" if parameter.ndim > 1 else "others"].append(parameter)
    decay = {"embeddings": 0.0, "weights": weight_decay, "others": 0.0}
    return torch.optim.AdamW(
        [{"params": given, "weight_decay": decay[name], "name": name} for name, given in groups.items() if given],
        lr=learning_rate,
        fused=True,
    )


def factor(schedule: str, step: int, steps: int, warmup: int) -> float:
    """What the learning rate of step ``step`` (from 0) is multiplied by: up in a line, then as the schedule says."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return max(0.0, 1 - done) if schedule == "linear" else 1.0
