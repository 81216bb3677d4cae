"""Transformers' ``generate`` with a model whose step a program has replaced.

Such programs replace the ``__call__`` of the model's class, or a ``forward``, by a function that pads what it is given
to the compiled length and runs a session. It was written for transformers 4, whose ``generate`` gave it all ids and a
mask in each step. Transformers 5 leaves out a mask that is all ones, and gives only the last id from the second step
on, since the cache that it made should hold the others; but a replaced step fills no cache, and the tokens come out
wrong without an error. So the converted model prepares such a step's inputs itself.
"""

from __future__ import annotations

import sys
from types import MethodType
from typing import Any

import torch
from torch import nn


def let_steps_be_replaced_(model: nn.Module) -> None:
    """Make ``generate`` right for replaced steps, in each part of a model that can generate; others are untouched."""
    transformers = sys.modules.get("transformers")
    if transformers is None:
        return  # then no part of the model is from there
    for module in model.modules():
        if isinstance(module, transformers.GenerationMixin) and not module.config.is_encoder_decoder:
            module.prepare_inputs_for_generation = MethodType(prepare_inputs_for_generation, module)


def prepare_inputs_for_generation(
    self: Any,
    input_ids: torch.Tensor,
    next_sequence_length: int | None = None,
    past_key_values: Any = None,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """The inputs of one step: for a replaced one that keeps no cache all ids, and for any replaced one a mask.

    A model that nobody has touched gets what its class prepares.
    """
    if _is_replaced(self):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if past_key_values is None or past_key_values.get_seq_length() == 0:
            next_sequence_length = None
    return type(self).prepare_inputs_for_generation(
        self,
        input_ids,
        next_sequence_length=next_sequence_length,
        past_key_values=past_key_values,
        attention_mask=attention_mask,
        **kwargs,
    )


def _is_replaced(model: nn.Module) -> bool:
    """Whether a step runs other code than the class's own ``forward``."""
    if type(model).__call__ is not nn.Module.__call__ or "forward" in vars(model):
        return True
    owner = next(cls for cls in type(model).__mro__ if "forward" in vars(cls))
    return vars(owner)["forward"].__module__ != owner.__module__
