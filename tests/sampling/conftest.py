"""Transformers' own logits processors, as its ``generate`` puts them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def reference() -> Callable[..., np.ndarray]:
    """From settings, a prompt, what was generated and a row [V] to the scores that transformers draws from."""
    import torch
    from transformers import GenerationConfig

    from support import zoo

    model = zoo.build(zoo.MODELS["gpt2"].config())

    def scores(
        settings: dict[str, Any], prompt: Sequence[int], output: Sequence[int], row: np.ndarray, own: Sequence[Any] = ()
    ) -> np.ndarray:
        most = settings.get("max_new_tokens", 20)
        config = GenerationConfig(**settings)
        config.update(**config._get_default_generation_params(), defaults_only=True)
        config.max_length = most + len(prompt)
        if config.min_new_tokens is not None:
            config.min_length = config.min_new_tokens + len(prompt)
        model._prepare_special_tokens(config, kwargs_has_attention_mask=True, device="cpu")
        asked = {"input_ids_seq_length": len(prompt), "encoder_input_ids": torch.tensor([prompt]), "device": "cpu"}
        processors = model._get_logits_processor(config, logits_processor=list(own), **asked)
        found = processors(torch.tensor([[*prompt, *output]]), torch.tensor(row[None]))
        return np.asarray(found[0].numpy())

    return scores
