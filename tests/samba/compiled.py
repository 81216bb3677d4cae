"""Modules compiled into program files for tests."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bossa import samba
from bossa.samba import arguments
from samba.libraries import compiled_once


@contextmanager
def started_with(**given: Any) -> Iterator[None]:
    """As if the program had been started with these arguments."""
    before = arguments.current()
    arguments.keep(Namespace(**given))
    try:
        yield
    finally:
        arguments.keep(before)


def compiled(folder: Path, model: nn.Module, inputs: Any, optimizers: Any = None, **options: Any) -> str:
    """The path of the program file of a module, in a folder."""
    with started_with(output_folder=str(folder), pef_name=type(model).__name__.lower()), compiled_once():
        return samba.session.compile(model, inputs, optimizers, **options)


class Net(nn.Module):
    """A little of everything that a session has to keep apart: ties, buffers, dropout, indices, several outputs."""

    def __init__(self, rate: float = 0.3) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(rate)
        self.hidden = nn.Linear(8, 8)
        self.hidden.weight = nn.Parameter(0.2 * torch.randn(8, 8).t())
        self.head = nn.Linear(8, 11)
        self.head.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.ones(8), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(
        self, ids: torch.Tensor, nothing: None, scale: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        x = self.norm(self.embed(ids).flatten(0, 1)) * self.frozen
        x = self.hidden(self.drop(x)).view(*ids.shape, 8)
        attended = nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=self.drop.p if self.training else 0.0)
        logits = self.head(attended * scale)
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return {"losses": losses.view(ids.shape), "logits": logits}
