"""Weights between a session and a file that plain PyTorch reads."""

from __future__ import annotations

import torch
from torch import nn

from bossa import samba


def save_checkpoint(model: nn.Module, checkpoint_name: str) -> None:
    """Write the weights that the session has now as a state dictionary of plain tensors."""
    samba.session.to_cpu(model)
    torch.save({name: samba.to_torch(tensor) for name, tensor in model.state_dict().items()}, checkpoint_name)


def load_checkpoint(model: nn.Module, checkpoint_name: str) -> None:
    """Give a traced model, and with it the session, the weights of a state dictionary."""
    model.load_state_dict(torch.load(checkpoint_name, map_location="cpu", weights_only=True))
    samba.session.to_rdu(model)
