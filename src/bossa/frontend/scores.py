"""Attention written out in a graph, recognised by what it computes: product, scale, mask or bias, softmax, product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from bossa.errors import CompileError
from bossa.frontend.operand import Operand

MASKED = -1e9
"""A score term at or below this hides a position."""


@dataclass(frozen=True)
class Term:
    """Something added to the scores: `factor` times a tensor over positions, broadcast to ``[H, T, T]``."""

    tensor: Callable[[int], torch.Tensor]  # sequence length -> [..., T or 1, T]
    factor: float = 1.0


@dataclass(frozen=True)
class Score:
    """``softcap * tanh(scale * q k^T / softcap) + terms``, the state of attention scores while they are traced.

    `in_tanh` is set between a softcap's tanh and the product that closes it, `normalised` by the softmax.
    """

    q: Operand  # [..., T, D]
    k: Operand  # [..., T, D]
    scale: float = 1.0
    terms: tuple[Term, ...] = field(default=())
    softcap: float = 0.0
    in_tanh: bool = False
    normalised: bool = False

    def scaled(self, factor: float, where: str) -> Score:
        """The scores times a number."""
        if self.normalised:
            raise CompileError(f"{where}: attention weights are scaled after the softmax")
        terms = tuple(replace(term, factor=term.factor * factor) for term in self.terms)
        if self.in_tanh:  # c tanh(s q k^T) is a softcap of c on scores of scale s c
            return replace(self, softcap=factor, scale=self.scale * factor, in_tanh=False)
        if self.softcap:
            raise CompileError(f"{where}: capped attention scores are scaled again")
        return replace(self, scale=self.scale * factor, terms=terms)

    def capped(self, where: str) -> Score:
        """tanh of the scores: the first half of a softcap."""
        if self.terms or self.softcap or self.normalised:
            raise CompileError(f"{where}: tanh of attention scores that are masked or capped already")
        return replace(self, in_tanh=True)

    def plus(self, tensor: Callable[[int], torch.Tensor], factor: float, where: str) -> Score:
        """The scores plus something that depends on positions alone."""
        if self.normalised or self.in_tanh:
            raise CompileError(f"{where}: something is added to attention scores at a place that is not known")
        return replace(self, terms=(*self.terms, Term(tensor, factor)))


@dataclass(frozen=True)
class Visibility:
    """What the terms of a score say: the window (0: none) and the bias of each key position, ``[T, H]`` or None."""

    window: int
    bias: NDArray[np.float32] | None


def classify(terms: tuple[Term, ...], heads: int, length: int, where: str) -> Visibility:
    """Read masks and biases off their values for a sequence of `length`.

    Raises:
        CompileError: what is left is not causal, not a window, or not a bias by key position alone.
    """
    allowed = torch.ones(length, length, dtype=torch.bool)
    bias = torch.zeros(heads, length, dtype=torch.float64)
    biased = False
    for term in terms:
        tensor = term.tensor(length)
        if tensor.dtype == torch.bool:
            raise CompileError(f"{where}: a truth value is added to attention scores")
        while tensor.ndim > 3 and tensor.shape[0] == 1:
            tensor = tensor[0]
        if tensor.ndim > 3:
            raise CompileError(f"{where}: an attention bias of shape {list(tensor.shape)} is not known")
        while tensor.ndim < 3:
            tensor = tensor[None]
        rows = tensor.shape[1]
        if rows == 1:  # by key position alone
            if bool((tensor * term.factor <= MASKED).any()):
                raise CompileError(f"{where}: attention hides key positions from every row")
            bias += tensor[:, 0].double() * term.factor
            biased = True
            continue
        hidden = tensor[0] * term.factor <= MASKED
        allowed &= ~hidden
        for head in range(tensor.shape[0]):
            plane = (tensor[head] * term.factor).double()
            if tensor.shape[0] > 1 and not bool(((plane <= MASKED) == hidden).all()):
                raise CompileError(f"{where}: attention masks that differ by head are not known")
            visible = ~hidden
            if not bool(plane[visible].any()):
                continue
            by_key = plane[-1].masked_fill(hidden[-1], 0.0)  # the last row sees every key, or the next line says so
            offset = plane.diagonal() - by_key  # a row's own constant does not change its softmax
            rebuilt = by_key[None, :] + offset[:, None]
            if bool(hidden[-1].any()) or float((plane - rebuilt)[visible].abs().max()) > 1e-4:
                raise CompileError(f"{where}: an attention bias that depends on more than the key position is not known")
            bias[head if tensor.shape[0] > 1 else slice(None)] += by_key
            biased = True
    return Visibility(window_of(allowed, where), bias.T.float().numpy().copy() if biased else None)


def window_of(allowed: torch.Tensor, where: str) -> int:
    """The window of a causal mask ``[T, T]`` of truth values; 0 where each row sees all before it.

    Raises:
        CompileError: the mask is not causal, or has another form.
    """
    length = len(allowed)
    i, j = torch.arange(length)[:, None], torch.arange(length)[None, :]
    if bool((allowed & (j > i)).any()):
        raise CompileError(f"{where}: attention is not causal: a token sees later ones")
    if bool((allowed == (j <= i)).all()):
        return 0
    window = int(allowed[-1].sum())
    if not bool((allowed == ((j <= i) & (j > i - window))).all()):
        raise CompileError(f"{where}: the attention mask is neither causal nor a sliding window")
    return window
