"""The processes that train together, as torchrun starts them; one process needs none of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from bossa.errors import TrainError

PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Processes:
    """How many there are, and which this is."""

    count: int = 1
    rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this one writes what is written once."""
        return self.rank == 0

    def add_up(self, numbers: torch.Tensor) -> None:
        """The sum over all processes, in place.

        Raises:
            TrainError: another process is gone.
        """
        if self.count == 1:
            return
        try:
            distributed.all_reduce(numbers)
        except RuntimeError as error:
            raise TrainError(
                f"process {self.rank} of {self.count} lost another one: start the run again, and it goes on where it"
                " was saved last"
            ) from error


@contextmanager
def together() -> Iterator[Processes]:
    """The processes of this run; they part when the block ends.

    Raises:
        TrainError: they do not find each other.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    try:
        distributed.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainError(
            f"the {count} processes cannot find each other ({str(error).splitlines()[0]}): start them with torchrun"
        ) from error
    try:
        yield Processes(count, distributed.get_rank())
    finally:
        with suppress(RuntimeError):  # of those that are gone
            distributed.destroy_process_group()
