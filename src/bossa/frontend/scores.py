"""Attention written out in a graph, recognised by what it computes: product, scale, mask or bias, softmax, product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from bossa.errors import CompileError
from bossa.frontend.operand import Operand

MASKED = -1e9
"""A score term at or below this hides a position."""
MASKED_ALONE = -1e4
"""So does one at or below this where the term is made of nothing but it and zeros: softmax gives it exactly 0."""

Positions = Callable[[int], torch.Tensor]
"""Something that depends on positions alone: sequence length -> ``[..., T or 1, T]``."""


@dataclass(frozen=True)
class Term:
    """Something added to the scores: `factor` times a tensor over positions, broadcast to ``[H, T, T]``."""

    tensor: Positions
    factor: float = 1.0


@dataclass(frozen=True)
class Score:
    """``softcap * tanh(scale * q k^T / softcap) + terms``, the state of attention scores while they are traced.

    `in_tanh` is set between a softcap's tanh and the product that closes it, `normalised` by the softmax. Where a gate
    is 0 the scores were multiplied by 0, which is sound only if a term hides those positions too.
    """

    q: Operand  # [..., T, D]
    k: Operand  # [..., T, D]
    scale: float = 1.0
    terms: tuple[Term, ...] = ()
    gates: tuple[Positions, ...] = ()
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
        if self.terms or self.gates or self.softcap or self.in_tanh or self.normalised:
            raise CompileError(f"{where}: tanh of attention scores that are masked or capped already")
        return replace(self, in_tanh=True)

    def plus(self, tensor: Positions, factor: float, where: str) -> Score:
        """The scores plus something that depends on positions alone."""
        if self.normalised or self.in_tanh:
            raise CompileError(f"{where}: something is added to attention scores at an unexpected place")
        return replace(self, terms=(*self.terms, Term(tensor, factor)))

    def gated(self, tensor: Positions, where: str) -> Score:
        """The scores times zeros and ones that depend on positions alone."""
        if self.normalised or self.in_tanh or self.terms:
            raise CompileError(f"{where}: attention scores are multiplied at an unexpected place")
        return replace(self, gates=(*self.gates, tensor))


@dataclass(frozen=True)
class Visibility:
    """What the terms of a score say: the window (0: none) and the bias of each key position, ``[T, H]`` or None."""

    window: int
    bias: NDArray[np.float32] | None


def classify(
    terms: tuple[Term, ...], heads: int, length: int, where: str, gates: tuple[Positions, ...] = ()
) -> Visibility:
    """Read masks and biases off their values for a sequence of `length`.

    Raises:
        CompileError: what is left is not causal, not a window, or not a bias by key position alone, or shorter
            sequences get other biases.
    """
    seen = _classify(terms, heads, length, where, gates)
    shorter = max(length // 2, 1)
    part = _classify(terms, heads, shorter, where, gates)
    # Only differences between keys count: a bias may run to 0 at a sequence's last key, whatever its length.
    long, short = (np.zeros((1, heads)) if s.bias is None else s.bias - s.bias[:1] for s in (seen, part))
    if seen.window != part.window and max(seen.window, part.window) < shorter:
        raise CompileError(f"{where}: a window that depends on the length of the whole sequence")
    if not np.allclose(long[:shorter], short, rtol=1e-5, atol=1e-4):
        raise CompileError(f"{where}: an attention bias that depends on the length of the whole sequence")
    return seen


def _classify(terms: tuple[Term, ...], heads: int, length: int, where: str, gates: tuple[Positions, ...]) -> Visibility:
    allowed = torch.ones(length, length, dtype=torch.bool)
    bias = torch.zeros(heads, length, dtype=torch.float64)
    biased = False
    for term in terms:
        tensor = _planes(term.tensor(length), where)
        if tensor.shape[1] == 1 < length:  # by key position alone
            if bool((tensor * term.factor <= MASKED).any()):
                raise CompileError(f"{where}: the attention mask hides some positions from every token")
            bias += tensor[:, 0].double() * term.factor
            biased = True
            continue
        hidden = _hidden(tensor[0] * term.factor)
        allowed &= ~hidden
        for head in range(tensor.shape[0]):
            plane = (tensor[head] * term.factor).double()
            if tensor.shape[0] > 1 and not bool((_hidden(plane) == hidden).all()):
                raise CompileError(f"{where}: attention masks that differ by head are not supported")
            if not bool(plane[~hidden].any()):
                continue
            bias[head if tensor.shape[0] > 1 else slice(None)] += _by_key(plane, hidden, where)
            biased = True
    for gate in gates:
        values = _planes(gate(length).float(), where)
        if not bool(((values == 0) | (values == 1)).all()) or bool(((values == 0) & allowed).any()):
            raise CompileError(f"{where}: attention scores are multiplied by something that is not their mask")
    return Visibility(window_of(allowed, where), bias.T.float().numpy().copy() if biased else None)


def _planes(tensor: torch.Tensor, where: str) -> torch.Tensor:
    """``[H or 1, T or 1, T]``."""
    if tensor.dtype == torch.bool:
        raise CompileError(f"{where}: a boolean is added to attention scores")
    while tensor.ndim > 3 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim > 3:
        raise CompileError(f"{where}: an attention bias of shape {list(tensor.shape)} is not supported")
    while tensor.ndim < 3:
        tensor = tensor[None]
    return tensor


def _hidden(plane: torch.Tensor) -> torch.Tensor:
    """Which positions a term hides."""
    lowest = plane.min()
    if lowest <= MASKED_ALONE and bool(((plane == 0) | (plane == lowest)).all()):
        return plane == lowest
    return plane <= MASKED


def _by_key(plane: torch.Tensor, hidden: torch.Tensor, where: str) -> torch.Tensor:
    """The bias of each key ``[T]``, the same for every row but for a constant of the row, which its softmax ignores."""
    by_key = plane[-1].masked_fill(hidden[-1], 0.0)
    constant = plane.diagonal() - by_key
    rebuilt = by_key[None, :] + constant[:, None]
    if bool(hidden[-1].any()) or float((plane - rebuilt)[~hidden].abs().max()) > 1e-4:
        raise CompileError(f"{where}: an attention bias that depends on more than the key position")
    return by_key


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
