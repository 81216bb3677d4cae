"""Causal language models for sessions, and the inputs that a program gives to them."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from bossa import samba

LENGTH, VOCABULARY = 40, 95


def gpt2(**other: Any) -> Any:
    """A GPT-2 in train mode, with dropout, as ``from_config`` makes it."""
    options = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LENGTH, "vocab_size": VOCABULARY} | other
    return transformers.AutoModelForCausalLM.from_config(
        transformers.GPT2Config(bos_token_id=0, eos_token_id=0, **options)
    )


def patched_gpt2() -> Any:
    """One whose layers keep their weights the other way round, with another activation and a forward of its own."""

    def product(self: Any, x: torch.Tensor) -> torch.Tensor:
        return samba.addmm(self.bias, x, self.weight, is_transposed=True)

    def logits_alone(self: Any, input_ids: Any = None, attention_mask: Any = None, position_ids: Any = None) -> Any:
        hidden = self.transformer(
            input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=self.config.use_cache
        )[0]
        return (self.lm_head(hidden),)

    model = gpt2()
    for layer in [module for module in model.modules() if isinstance(module, Conv1D)]:
        layer.weight = nn.Parameter(layer.weight.data.transpose(1, 0))
        layer.forward = product.__get__(layer, type(layer))
    for block in model.transformer.h:
        block.mlp.act = nn.GELU()
    model.forward = logits_alone.__get__(model, type(model))
    disturb(model)
    return model


def llama() -> Any:
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=VOCABULARY, max_position_embeddings=LENGTH, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    disturb(model)
    return model


def disturb(model: nn.Module) -> None:
    """Biases that are not zero, norms that are not one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))


def ids_of(*rows: list[int]) -> torch.Tensor:
    """Sequences, padded with zeros. [b, L]"""
    ids = torch.zeros(len(rows), LENGTH, dtype=torch.int32)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    return ids


def mask_of(*lengths: int) -> torch.Tensor:
    """Ones and then zeros. [b, L]"""
    return (torch.arange(LENGTH) < torch.tensor(lengths)[:, None]).float()


def inputs_of(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor | None = None
) -> dict[str, Any]:
    """What a program gives to `session.run`; to a GPT-2 a mask [b, 1, L]."""
    if positions is None:
        positions = torch.arange(LENGTH).short().unsqueeze(0).expand(ids.shape)
    mask = mask[:, None] if model.config.model_type == "gpt2" else mask
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {name: samba.from_torch_tensor(tensor, name) for name, tensor in given.items()}


def examples_of(model: Any, sequences: int = 1) -> dict[str, Any]:
    """Inputs to trace with."""
    return inputs_of(model, ids_of(*[[1, 2]] * sequences), mask_of(*[2] * sequences))


@torch.no_grad()
def eager(model: nn.Module, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor | None = None) -> Any:
    """The logits of the module itself, without dropout."""
    training = model.training
    model.eval()
    positions = torch.arange(LENGTH).expand(ids.shape) if positions is None else positions.long()
    result = model(input_ids=ids.long(), attention_mask=mask.long(), position_ids=positions)
    model.train(training)
    return result[0] if isinstance(result, tuple) else result.logits
