"""Batches of a loader under the names that a session knows them by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import cast

import torch

from bossa.errors import SambaError
from bossa.samba.tensor import SambaTensor


class SambaLoader:
    """Gives what a loader gives, each batch as a tuple of named tensors.

    Args:
        dataloader: A `torch.utils.data.DataLoader`, or anything that gives sequences of tensors.
        names: One for each tensor of a batch, in order.
    """

    def __init__(self, dataloader: Iterable[Sequence[torch.Tensor]], names: Sequence[str]) -> None:
        self.dataloader = dataloader
        self.names = list(names)

    def __len__(self) -> int:
        return len(cast(Sized, self.dataloader))

    def __iter__(self) -> Iterator[tuple[SambaTensor, ...]]:
        for batch in self.dataloader:
            if len(batch) != len(self.names):
                raise SambaError(f"SambaLoader: a batch of {len(batch)} tensors, and names for {len(self.names)}")
            yield tuple(SambaTensor(tensor, name, 0) for tensor, name in zip(batch, self.names, strict=True))
