"""``adapter_config.json``: what of it changes the result, and the adapters that are refused by what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any, NoReturn

from bossa.errors import AdapterError, shown

CONFIG = "adapter_config.json"
LARGEST = 4 << 20
"""Bytes of the largest config that is read."""

REFUSED = {
    "use_dora": "DoRA, which scales each output anew",
    "use_qalora": "QA-LoRA, which pools inputs",
    "use_bdlora": "BD-LoRA, whose factors are blocks",
    "layer_replication": "layers that are there several times (layer_replication)",
    "trainable_token_indices": "tokens of the embedding (trainable_token_indices)",
    "target_parameters": "parameters that are no module's weight (target_parameters)",
    "modules_to_save": "whole modules (modules_to_save)",
    "lora_bias": "biases beside its factors (lora_bias)",
    "alora_invocation_tokens": "activated LoRA, which begins at a token (alora_invocation_tokens)",
    "arrow_config": "Arrow, which chooses among adapters",
    "use_monarch": "Monarch factors",
}
"""Fields that ask for what no low-rank pair beside a linear is, wherever they are set, and what that is."""
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""``init_lora_weights`` that leave the model's own weights alone."""


@dataclass(frozen=True)
class AdapterConfig:
    """How the factors of each module are scaled, and how matrices are stored in the model that it was made for.

    Attributes:
        rank, alpha: of modules that no pattern names.
        rank_pattern, alpha_pattern: by regular expression of the end of a module's name; the first that fits counts.
        root: whether the scale is alpha over the root of the rank (rsLoRA) instead of over the rank.
        transposed: whether the adapted matrices are stored as ``[K, N]``, as GPT-2's are (``fan_in_fan_out``).
        where: the file, for messages.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    root: bool
    transposed: bool
    where: str

    def scale(self, module: str, rank: int) -> float:
        """What the product of a module's factors, which are of this rank, is multiplied by.

        Raises:
            AdapterError: the config says another rank.
        """
        wanted = _chosen(self.rank_pattern, module, self.rank, self.where)
        if wanted != rank:
            raise AdapterError(
                f"{self.where}: says that the factors of {shown(module)!r} have rank {wanted}, and they have rank"
                f" {rank}: fetch the adapter again"
            )
        alpha: float = _chosen(self.alpha_pattern, module, self.alpha, self.where)
        return alpha / (sqrt(rank) if self.root else rank)


def read_config(folder: Path) -> AdapterConfig:
    """The config of the adapter in a folder.

    Raises:
        AdapterError: there is none, it cannot be read, or it is of an adapter that is not supported.
    """
    path = folder / CONFIG
    where = shown(path)

    def refuse(what: str) -> NoReturn:
        raise AdapterError(f"{where}: {what}: fetch the adapter again")

    try:
        if path.stat().st_size > LARGEST:
            refuse(f"is larger than {LARGEST >> 20} MiB")
        data = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise AdapterError(
            f"{shown(folder)}: has no {CONFIG} that can be read ({error.strerror}): pass the folder of an adapter in"
            " PEFT's format"
        ) from None
    except (ValueError, RecursionError):
        refuse("is not valid JSON")
    if not isinstance(data, dict):
        refuse("is not a JSON object")
    kind = data.get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"{where}: is an adapter of type {shown(kind)[:40]}: only LORA is supported")
    _refuse_unsupported(data, where)
    rank, alpha = data.get("r", 8), data.get("lora_alpha", 8)
    if not _is_rank(rank):
        refuse(f"r is {shown(rank)[:40]}, and not a whole number of 1 or more")
    if not _is_number(alpha):
        refuse(f"lora_alpha is {shown(alpha)[:40]}, and not a number")
    ranks, alphas = data.get("rank_pattern") or {}, data.get("alpha_pattern") or {}
    if not isinstance(ranks, dict) or not all(map(_is_rank, ranks.values())):
        refuse("rank_pattern does not map names to ranks")
    if not isinstance(alphas, dict) or not all(map(_is_number, alphas.values())):
        refuse("alpha_pattern does not map names to numbers")
    return AdapterConfig(
        rank, alpha, ranks, alphas, bool(data.get("use_rslora")), bool(data.get("fan_in_fan_out")), where
    )


def _refuse_unsupported(data: Mapping[str, Any], where: str) -> None:
    for name, what in REFUSED.items():
        if data.get(name):
            raise AdapterError(
                f"{where}: the adapter has {what}, which is not supported: train one of low-rank pairs beside linears"
                " alone, or merge it with PEFT and compile that"
            )
    if data.get("bias", "none") != "none":
        raise AdapterError(
            f"{where}: the adapter has biases (bias {shown(data['bias'])[:40]!r}), which is not supported: train one"
            " with bias none, or merge it with PEFT and compile that"
        )
    start = data.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise AdapterError(
            f"{where}: init_lora_weights {shown(start)[:40]!r} changes the model's own weights, which is not supported:"
            " save the adapter as a plain LoRA (save_pretrained with path_initial_model_for_weight_conversion)"
        )


def _is_rank(value: object) -> bool:
    return type(value) is int and 1 <= value < 2**20


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and isfinite(value)  # type: ignore[arg-type]


def _chosen(patterns: Mapping[str, Any], module: str, otherwise: Any, where: str) -> Any:
    """What the first pattern that fits the end of a module's name says, as PEFT's ``get_pattern_key`` finds it."""
    if not patterns:
        return otherwise
    from bossa.checks.patterns import PatternError, Patterns

    try:
        return next((v for p, v in patterns.items() if Patterns([rf"^(.*\.)?({p})$"]).search(module)), otherwise)
    except PatternError as error:
        raise AdapterError(f"{where}: a pattern of rank_pattern or alpha_pattern is not matched ({error})") from None
