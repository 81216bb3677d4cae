"""What a training run is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Settings:
    """All of a run. Those of ``IDENTITY`` decide what comes out, and must be the same for a run to be resumed.

    Attributes:
        steps: updates of the weights; None: as many as ``epochs`` make.
        batch_size: articles of one update, of all processes together, before ``accumulation`` multiplies them.
        lora_rank: None trains all weights.
        tokens_per_pass: at most so many go through the model at once; it decides memory and speed alone.
        warmup: steps; below 1, a part of all.
        eval_steps: an evaluation, and a save, after so many steps; None: ten in a run.
    """

    model: str | None
    data_dir: Path
    output: Path
    config_name: str | None = None
    cache_dir: Path | None = None
    trust_remote_code: bool = False
    steps: int | None = None
    epochs: float = 1.0
    batch_size: int = 16
    accumulation: int = 1
    learning_rate: float | None = None
    weight_decay: float = 0.1
    max_grad_norm_clip: float = 1.0
    warmup: float = 0.03
    lr_schedule: str = "cosine"
    prompt_loss_weight: float = 0.0
    dropout: float | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ()
    activation_checkpointing: bool = False
    bf16: str = "auto"
    packing: bool = True
    tokens_per_pass: int = 4096
    max_seq_length: int | None = None
    eval_steps: int | None = None
    eval_examples: int | None = None
    save_steps: int | None = None
    min_eval_acc: float | None = None
    patience: int | None = None
    checkpoint_format: str = "safetensors"
    checkpoint_name: Path | None = None
    seed: int = 0
    resume: bool = True
    threads: int | None = None

    @property
    def articles_per_step(self) -> int:
        """Of all processes together."""
        return self.batch_size * self.accumulation

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed, as JSON values."""
        return {name: getattr(self, name) for name in IDENTITY} | {"lora_targets": list(self.lora_targets)}


IDENTITY = (
    "model", "config_name", "steps", "epochs", "batch_size", "accumulation", "learning_rate", "weight_decay",
    "max_grad_norm_clip", "warmup", "lr_schedule", "prompt_loss_weight", "dropout", "lora_rank", "lora_alpha",
    "lora_dropout", "activation_checkpointing", "bf16", "packing", "tokens_per_pass", "max_seq_length", "eval_steps",
    "eval_examples", "min_eval_acc", "patience", "seed",
)  # fmt: skip
