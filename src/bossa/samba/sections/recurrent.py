"""Recurrent layers, one at a time: torch drops between the layers of a stack inside its own code, unseen by a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bossa.errors import CompileError

STACKS = frozenset([torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu])
"""What `torch.nn.LSTM`, `GRU` and `RNN` call."""


def layer_by_layer(
    stack: Callable[..., Any], args: tuple[Any, ...], drop: Callable[[torch.Tensor, float], torch.Tensor]
) -> Any:
    """A stack of recurrent layers as torch computes it, with ``drop(output, p)`` after each layer but the last.

    Raises:
        CompileError: it drops between layers of packed sequences.
    """
    layers, p, training = args[-5:-2] if isinstance(args[3], bool) else args[-4:-1]
    if not training or layers == 1:
        return stack(*args)
    if not isinstance(args[3], bool):
        if p == 0.0:
            return stack(*args)
        raise CompileError(
            "a recurrent layer drops between the layers of a packed sequence, which cannot be traced: pass it padded"
            " sequences, or give it dropout=0"
        )
    x, state, weights, biases, _, _, _, bidirectional, batch_first = args
    directions = 2 if bidirectional else 1
    share = len(weights) // layers
    states = state if isinstance(state, (tuple, list)) else (state,)
    finals: list[list[torch.Tensor]] = [[] for _ in states]
    for layer in range(layers):
        own = tuple(part[layer * directions : (layer + 1) * directions] for part in states)
        own_weights = weights[layer * share : (layer + 1) * share]
        own_state = own[0] if isinstance(state, torch.Tensor) else own
        x, *after = stack(x, own_state, own_weights, biases, 1, 0.0, training, bidirectional, batch_first)
        for kept, final in zip(finals, after, strict=True):
            kept.append(final)
        if layer < layers - 1:
            x = drop(x, p)
    return (x, *(torch.cat(kept) for kept in finals))
