"""Attention over articles that lie one behind the other in a row, each for itself.

A pass has no padding: every layer but attention takes its tokens as they lie, ``[1, T, …]``. For attention the articles
are spread into a few right-padded batches of like lengths, where a causal mask alone keeps padding out of sight, and
what comes out is gathered again. It is registered with transformers' attention interface, so that any architecture
which goes through that has it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

IMPLEMENTATION = "bossa_packed"
LIKE = 0.6
"""Articles of a batch have at least this part of the tokens of its longest."""
PLAIN = {"sliding_window", "position_ids", "cache_position", "output_attentions", "use_cache", "position_embeddings"}
"""Arguments that change nothing about scores: the window is in the mask."""


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a pass go for attention.

    Attributes:
        groups: articles and padded length of each batch.
        slots: the token of each place of all batches, int64 ``[places]``; padding repeats token 0.
        places: the place of each token, int64 ``[T]``.
    """

    groups: tuple[tuple[int, int], ...]
    slots: torch.Tensor
    places: torch.Tensor

    @property
    def longest(self) -> int:
        """Tokens of the longest article."""
        return max(length for _, length in self.groups)


def lay_out(lengths: Sequence[int]) -> Layout:
    """The layout of articles of these lengths, which lie one behind the other."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    groups: list[list[int]] = []
    for article in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        if not groups or lengths[article] < LIKE * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(article)
    slots, places = [], torch.empty(starts[-1], dtype=torch.long)
    base = 0
    for group in groups:
        longest = lengths[group[0]]
        table = torch.zeros(len(group), longest, dtype=torch.long)
        for row, article in enumerate(group):
            count = lengths[article]
            table[row, :count] = torch.arange(starts[article], starts[article] + count)
            places[starts[article] : starts[article] + count] = torch.arange(count) + (base + row * longest)
        slots.append(table.view(-1))
        base += len(group) * longest
    return Layout(tuple((len(group), lengths[group[0]]) for group in groups), torch.cat(slots), places)


class _Spread(torch.autograd.Function):
    """Tokens to places. Padding gets no gradient: no query that counts sees it."""

    @staticmethod
    def forward(ctx: Any, tokens: torch.Tensor, layout: Layout) -> torch.Tensor:
        ctx.layout = layout
        return tokens.index_select(0, layout.slots)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient.index_select(0, ctx.layout.places), None


class _Gather(torch.autograd.Function):
    """Places to tokens."""

    @staticmethod
    def forward(ctx: Any, places: torch.Tensor, layout: Layout) -> torch.Tensor:
        ctx.layout = layout
        return places.index_select(0, layout.places)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        out = gradient.new_zeros(len(ctx.layout.slots), *gradient.shape[1:])
        return out.index_copy_(0, ctx.layout.places, gradient), None


class _Current:
    """The layout of the pass that is being computed."""

    layout: Layout | None = None


@contextmanager
def packed(layout: Layout) -> Iterator[None]:
    """Within it, attention takes its one row as the articles of ``layout``; the backward pass belongs within it too."""
    before, _Current.layout = _Current.layout, layout
    try:
        yield
    finally:
        _Current.layout = before


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of a pass: query ``[1, H, T, D]`` → ``[1, T, H, D]``."""
    layout = _Current.layout
    attend = _scores_of(module, more)
    if layout is None:  # not within a pass: sequences as the model gives them
        return attend(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more)
    batches = [_Spread.apply(given[0].transpose(0, 1), layout) for given in (query, key, value)]
    out, base = [], 0
    for count, length in layout.groups:
        part = slice(base, base + count * length)
        base = part.stop
        q, k, v = (batch[part].unflatten(0, (count, length)).transpose(1, 2) for batch in batches)
        mask = None if attention_mask is None else attention_mask[:, :, :length, :length]
        result = attend(module, q, k, v, mask, dropout=dropout, scaling=scaling, **more)[0]
        out.append(result.reshape(count * length, *result.shape[2:]))
    return _Gather.apply(out[0] if len(out) == 1 else torch.cat(out), layout)[None], None


def _scores_of(module: torch.nn.Module, more: dict[str, Any]) -> Any:
    """SDPA where scores are plain; else what the model's own file does, for soft caps, sinks and the like."""
    extra = [name for name, given in more.items() if given is not None and name not in PLAIN]
    own = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if not extra or own is None:
        return ALL_ATTENTION_FUNCTIONS["sdpa"]

    def eager(
        module: torch.nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, **arguments: Any
    ) -> Any:
        length = q.shape[2]
        if mask is None:
            mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
        additive = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, torch.finfo(q.dtype).min)
        return own(module, q, k, v, additive, **arguments)

    return eager


def _make_mask(mask_function: Any, use_vmap: bool = False, **more: Any) -> torch.Tensor | None:
    """What the positions of an article see, bool ``[1, 1, longest, longest]``; None where that is all before them."""
    if _Current.layout is None:
        return sdpa_mask(mask_function=mask_function, use_vmap=use_vmap, **more)
    longest = _Current.layout.longest
    mask = sdpa_mask(
        batch_size=1,
        q_length=longest,
        kv_length=longest,
        mask_function=mask_function,
        attention_mask=None,
        allow_is_causal_skip=False,
        use_vmap=use_vmap,
    )
    plain = torch.ones(longest, longest, dtype=torch.bool).tril()
    return None if mask is None or torch.equal(mask.expand(1, 1, longest, longest)[0, 0], plain) else mask


AttentionInterface.register(IMPLEMENTATION, _attend)
AttentionMaskInterface.register(IMPLEMENTATION, _make_mask)
