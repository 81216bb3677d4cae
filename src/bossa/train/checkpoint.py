"""What a run writes: checkpoints that other programs read, and the state from which it goes on.

The state is one file, replaced at once: whatever ends the process, it is whole, and of one step. A checkpoint's weights
are one file too, or shards in the Hugging Face layout; each file is replaced when all are written.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bossa.errors import TrainError, shown
from bossa.host.files import replacing, sync_folder
from bossa.train import lora
from bossa.train.model import Loaded

STATE = "state.pt"
SCRATCH = ".writing-"
STATE_FORMAT = 1


@dataclass
class State:
    """Where a run is.

    Attributes:
        step: updates that are done.
        identity: settings and data that must be the same for it to go on.
        best: exact match and loss of the best evaluation so far, and its step; None before the first.
        waited: evaluations since the best one.
        finished: why there will be no more steps; None while there will.
    """

    step: int = 0
    identity: dict[str, Any] = field(default_factory=dict)
    best: dict[str, float] | None = None
    waited: int = 0
    finished: str | None = None


@contextlib.contextmanager
def saving(where: Path) -> Iterator[None]:
    """Say in one line that something could not be written; what was there before is still there."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise TrainError(
            f"{shown(where)}: cannot be written ({reason}): what was saved before is whole; free some space or mend the"
            " folder, and start the same command again to go on"
        ) from error


def write_state(folder: Path, state: State, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Replace the state of a run.

    Raises:
        TrainError: it cannot be written.
    """
    weights = {name: given.detach() for name, given in model.named_parameters() if given.requires_grad}
    whole = {"format": STATE_FORMAT, **vars(state), "weights": weights, "optimizer": optimizer.state_dict()}
    with saving(folder / STATE), replacing(folder / STATE) as file:
        torch.save(whole, file)


def read_state(folder: Path) -> dict[str, Any] | None:
    """The state of a run, if there is one.

    Raises:
        TrainError: it cannot be read.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        whole = torch.load(path, weights_only=True, map_location="cpu")
        if whole["format"] != STATE_FORMAT:
            raise ValueError(f"it is of format {whole['format']}")
    except Exception as error:  # whatever torch raises for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainError(
            f"{shown(path)}: cannot be read ({reason[:200]}): --no-resume begins anew, or give another --output"
        ) from error
    return dict(whole)


def restore(whole: dict[str, Any], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Put weights and optimizer back where they were."""
    parameters = dict(model.named_parameters())
    for name, weight in whole["weights"].items():
        parameters[name].data.copy_(weight)
    optimizer.load_state_dict(whole["optimizer"])
    return State(**{name: whole[name] for name in vars(State())})


def describe_difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Which settings differ, in words; nothing where none does."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} was {shown(before.get(name))} and is {shown(now.get(name))}" for name in names)


def write_checkpoint(
    folder: Path, loaded: Loaded, tokenizer: dict[str, bytes], checkpoint_format: str, card: str | None = None
) -> None:
    """Write a checkpoint: an adapter in PEFT's format, or a model in Hugging Face's layout with its tokenizer.

    Raises:
        TrainError: it cannot be written.
    """
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder.parent))
        try:
            _write(scratch, loaded, checkpoint_format)
            if card is not None:
                (scratch / "README.md").write_text(card, encoding="utf-8")
            for name, data in tokenizer.items():
                (scratch / name).parent.mkdir(exist_ok=True)
                (scratch / name).write_bytes(data)
            for path in sorted(scratch.rglob("*")):
                if path.is_file():
                    _sync(path)
                    target = folder / path.relative_to(scratch)
                    target.parent.mkdir(exist_ok=True)
                    path.replace(target)
            sync_folder(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _write(scratch: Path, loaded: Loaded, checkpoint_format: str) -> None:
    if loaded.lora is not None:
        from safetensors.torch import save_file

        save_file(lora.adapter_tensors(loaded.model), scratch / lora.WEIGHTS, metadata={"format": "pt"})
        text = lora.adapter_config(loaded.model, loaded.base, loaded.lora)
        (scratch / lora.CONFIG).write_text(text, encoding="utf-8")
    elif checkpoint_format == "pt":
        loaded.model.config.save_pretrained(scratch)
        torch.save(plain_weights(loaded.model), scratch / "checkpoint.pt")
    else:
        loaded.model.save_pretrained(scratch)


def plain_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of a model: plain tensors."""
    return {name: given.detach() for name, given in model.state_dict().items()}


def write_weights(path: Path, model: torch.nn.Module) -> None:
    """Write the weights of a model as torch does: a state dict of plain tensors.

    Raises:
        TrainError: it cannot be written.
    """
    with saving(path), replacing(path) as file:
        torch.save(plain_weights(model), file)


def _sync(path: Path) -> None:
    import os

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clean(folder: Path) -> None:
    """Take away what an interrupted save left."""
    for path in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(path, ignore_errors=True)
