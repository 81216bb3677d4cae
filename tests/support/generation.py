"""Transformers' own logits processors, as its ``generate`` puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np


@lru_cache(maxsize=1)
def _model() -> Any:
    from support import zoo

    return zoo.build(zoo.MODELS["gpt2"].config())


def transformers_scores(
    settings: dict[str, Any], prompt: Sequence[int], output: Sequence[int], row: np.ndarray
) -> np.ndarray:
    """The scores [V] that ``generate`` draws from, or takes the greatest of, in the type of the logits.

    Args:
        settings: of a generation config.
        prompt: token ids.
        output: the token ids generated so far.
        row: the model's logits [V] after them.
    """
    import torch
    from transformers import GenerationConfig

    model = _model()
    config = GenerationConfig(**settings)
    config.update(**config._get_default_generation_params(), defaults_only=True)
    config.max_length = settings.get("max_new_tokens", 20) + len(prompt)
    if config.min_new_tokens is not None:
        config.min_length = config.min_new_tokens + len(prompt)
    model._prepare_special_tokens(config, kwargs_has_attention_mask=True, device="cpu")
    processors = model._get_logits_processor(
        config, input_ids_seq_length=len(prompt), encoder_input_ids=torch.tensor([prompt]), device="cpu"
    )
    found = processors(torch.tensor([[*prompt, *output]]), torch.tensor(row[None]))
    return np.asarray(found[0].numpy())
