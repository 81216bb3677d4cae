"""Logits and loss where there is a label, some rows at a time, so that no ``[tokens, vocabulary]`` is ever held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import ModelOutput

LOGITS_AT_ONCE = 1 << 23
"""Logits of one chunk."""


@dataclass
class Counted:
    """What came of some labels: the weighted sum of their losses, and whether each was the likeliest token."""

    loss: torch.Tensor
    right: torch.Tensor


class Head:
    """What a causal model does with the hidden states of its decoder: head, scale, soft cap.

    The model's own ``forward`` is called with a decoder that hands it the wanted hidden states, so that whatever it
    does to logits is done. ``kind`` is what the decoder returns: models look for its other fields.
    """

    def __init__(self, model: Any, decoder: nn.Module, kind: type[ModelOutput]) -> None:
        self._model, self._decoder, self._kind = model, decoder, kind
        weights = model.get_output_embeddings().weight
        self.rows = max(1, LOGITS_AT_ONCE // weights.shape[0])
        known = {id(parameter) for parameter in decoder.parameters()}
        own = {id(parameter): parameter for parameter in model.parameters() if id(parameter) not in known}
        own[id(weights)] = weights
        self.parameters = [parameter for parameter in own.values() if parameter.requires_grad]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states ``[n, width]`` → logits ``[n, vocabulary]``."""
        with _handing_on(self._decoder, self._kind(last_hidden_state=hidden[None])):
            ids = torch.zeros(1, len(hidden), dtype=torch.long)
            return self._model(input_ids=ids, use_cache=False).logits[0]


@contextmanager
def _handing_on(decoder: nn.Module, output: ModelOutput) -> Iterator[None]:
    decoder.forward = lambda *_given, **_named: output
    try:
        yield
    finally:
        del decoder.forward


class _ChunkedLoss(torch.autograd.Function):
    """Weighted cross entropy; gradients of a chunk are made with it, so that its logits are computed once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: Head,
        labels: torch.Tensor,
        weights: torch.Tensor,
        right: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        wanted = [hidden, *parameters] if hidden.requires_grad or parameters else []
        loss = torch.zeros((), dtype=torch.float32)
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        to_hidden = torch.empty_like(hidden)
        for start in range(0, len(hidden), head.rows):
            part = slice(start, start + head.rows)
            with torch.enable_grad():
                states = hidden[part].detach().requires_grad_()
                logits = head.logits(states).float()
                each = functional.cross_entropy(logits, labels[part], reduction="none")
                total = (each * weights[part]).sum()
            right[part] = logits.detach().argmax(-1) == labels[part]
            loss += total.detach()
            if wanted:
                found = torch.autograd.grad(total, [states, *parameters], allow_unused=True)
                to_hidden[part] = found[0]
                for gradient, more in zip(gradients, found[1:], strict=True):
                    if more is not None:
                        gradient += more
        ctx.save_for_backward(to_hidden, *gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        to_hidden, *others = ctx.saved_tensors
        return (to_hidden * gradient, None, None, None, None, *(other * gradient for other in others))


def chunked_loss(head: Head, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> Counted:
    """The loss of hidden states ``[n, width]`` that should predict ``labels [n]``."""
    right = torch.zeros(len(labels), dtype=torch.bool)
    if torch.is_grad_enabled():
        return Counted(_ChunkedLoss.apply(hidden, head, labels, weights, right, *head.parameters), right)
    loss = torch.zeros((), dtype=torch.float32)
    for start in range(0, len(hidden), head.rows):
        part = slice(start, start + head.rows)
        logits = head.logits(hidden[part]).float()
        loss += (functional.cross_entropy(logits, labels[part], reduction="none") * weights[part]).sum()
        right[part] = logits.argmax(-1) == labels[part]
    return Counted(loss, right)
