"""Replicas of a program, a process each: their gradients are averaged before they are used."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import distributed

from bossa.errors import SambaError


def world_size() -> int:
    """How many replicas there are: 1 where nobody has set a world up as ``torchrun`` does."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    size = os.environ.get("WORLD_SIZE", "1")
    return int(size) if size.isdigit() else 1


def join() -> None:
    """Meets the other replicas where that has not been done: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say how.

    Raises:
        SambaError: they cannot be reached.
    """
    if distributed.is_initialized():
        return
    try:
        distributed.init_process_group("gloo")
    except (ValueError, RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise SambaError(f"the other replicas cannot be reached ({reason}): start them with torchrun") from error


def average(gradients: Iterable[torch.Tensor]) -> None:
    """Sets each gradient to its mean over all replicas; a type of number travels as one message."""
    by_type: dict[torch.dtype, list[torch.Tensor]] = {}
    for gradient in gradients:
        by_type.setdefault(gradient.dtype, []).append(gradient)
    for tensors in by_type.values():
        together = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(together)
        together /= world_size()
        for tensor, part in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))
