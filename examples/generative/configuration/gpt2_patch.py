"""GPT-2 with other code in some of its layers, which computes the same and returns what the programs here work with."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  as everyone calls it
from transformers.pytorch_utils import Conv1D

from bossa import samba


def gpt2_patch_helper(model: nn.Module, *_sizes: int, **_options: Any) -> nn.Module:
    """Patch a GPT2LMHeadModel in place, and return it.

    The head takes labels that are shifted already, and returns the loss of each token and the logits, or the logits
    alone where there are no labels. Projections are one `samba.addmm`, the activation is one operator. Parameters keep
    their names and shapes, so that checkpoints are those of the class as it is.

    Args:
        model: A model of this class, or one with the same modules.
        _sizes, _options: Batch size and lengths, which some programs give; the code is the same for all.
    """
    model.forward = MethodType(_head, model)
    for block in model.transformer.h:
        if model.config.activation_function == "gelu_new":
            block.mlp.act = nn.GELU(approximate="tanh")
        for layer in block.modules():
            if isinstance(layer, Conv1D):
                layer.forward = MethodType(_project, layer)
        samba.directives.op_fusion(block, "Block")
    return model


def _project(self: Conv1D, x: torch.Tensor) -> torch.Tensor:
    return samba.addmm(self.bias, x, self.weight)


def _head(
    self: nn.Module,
    input_ids: torch.Tensor | None = None,
    past_key_values: Any = None,
    attention_mask: torch.Tensor | None = None,
    token_type_ids: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    head_mask: None = None,  # nothing has it any more, but programs count their arguments with it
    inputs_embeds: torch.Tensor | None = None,
    encoder_hidden_states: None = None,
    encoder_attention_mask: None = None,
    labels: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Logits `[B, L, V]`; with labels `[B, L]`, the losses `[B·L]` before them, 0 where the label is -100."""
    hidden = self.transformer(
        input_ids,
        attention_mask=attention_mask,
        token_type_ids=token_type_ids,
        position_ids=position_ids,
        inputs_embeds=inputs_embeds,
        use_cache=False,
    ).last_hidden_state
    logits = self.lm_head(hidden)
    if labels is None:
        return (logits,)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none"), logits
