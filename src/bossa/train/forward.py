"""How a pass goes through a model: packed where the model allows, padded where not; found out by trying.

What the model does alone with each article is the measure. A way that gives anything else is not taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bossa.frontend.quiet import quiet
from bossa.train.articles import Articles
from bossa.train.attention import IMPLEMENTATION, Layout, lay_out, packed
from bossa.train.batches import Pass
from bossa.train.head import Counted, Head, chunked_loss

CLOSE = 1e-3
"""Of the largest number compared: what hidden states and logits in fp32 may differ by from an article's alone."""


@dataclass
class Forward:
    """The way that was chosen.

    Attributes:
        is_packed: articles lie one behind the other; else each has a row, padded on the right.
        head: makes logits of hidden states; None where the model must do it all by itself.
        autocast: products are computed in bf16.
    """

    model: Any
    decoder: nn.Module | None
    head: Head | None
    is_packed: bool
    attention: str | None
    autocast: bool = False

    @contextmanager
    def running(self, given: Pass) -> Iterator[Counted]:
        """The losses of a pass; what is done with gradients belongs into the block."""
        layout = lay_out(given.lengths) if self.is_packed else None
        with packed(layout) if layout is not None else nullcontext():
            with torch.autocast("cpu", torch.bfloat16) if self.autocast else nullcontext():
                counted = self._count(given)
            yield counted

    def computed(self, given: Pass) -> int:
        """Tokens that the model computes for a pass, padding included."""
        return len(given.tokens) if self.is_packed else len(given.lengths) * max(given.lengths)

    def _count(self, given: Pass) -> Counted:
        ids, positions, mask = _inputs(given, self.is_packed)
        places = torch.from_numpy(given.labelled)
        if not self.is_packed:
            places = _padded_places(given)[places]
        labels, weights = torch.from_numpy(given.labels), torch.from_numpy(given.weights)
        if self.head is not None and self.decoder is not None:
            hidden = _hidden(self.decoder, ids, positions, mask)
            return chunked_loss(self.head, hidden.flatten(0, 1).index_select(0, places), labels, weights)
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits.flatten(0, 1)[places].float()
        loss = (functional.cross_entropy(logits, labels, reduction="none") * weights).sum()
        return Counted(loss, logits.detach().argmax(-1) == labels)


def _inputs(given: Pass, is_packed: bool) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Ids, positions and mask of a pass: ``[1, T]``, or ``[n, longest]`` padded on the right."""
    tokens = torch.from_numpy(given.tokens)
    if is_packed:
        positions = torch.cat([torch.arange(length) for length in given.lengths])
        # without a mask, transformers finds borders in the positions and puts them into masks that are of one article
        return tokens[None], positions[None], torch.ones(1, len(tokens), dtype=torch.long)
    rows = torch.zeros(len(given.lengths), max(given.lengths), dtype=torch.long)
    mask = torch.zeros_like(rows)
    start = 0
    for row, length in enumerate(given.lengths):
        rows[row, :length] = tokens[start : start + length]
        mask[row, :length] = 1
        start += length
    return rows, None, None if bool(mask.all()) else mask


def _padded_places(given: Pass) -> torch.Tensor:
    longest = max(given.lengths)
    return torch.cat([torch.arange(length) + row * longest for row, length in enumerate(given.lengths)])


def _hidden(
    decoder: nn.Module, ids: torch.Tensor, positions: torch.Tensor | None, mask: torch.Tensor | None
) -> torch.Tensor:
    """Last hidden states ``[n, tokens, width]``."""
    more = {} if positions is None else {"position_ids": positions}
    return decoder(input_ids=ids, attention_mask=mask, use_cache=False, **more).last_hidden_state


def choose(model: Any, articles: Articles, packing: bool) -> Forward:
    """The fastest way in which the model gives what it gives for each article alone; the model in fp32.

    Attention is left as the chosen way needs it.
    """
    was_training = model.training
    model.eval()
    probe = _probe(articles)
    try:
        with torch.no_grad(), quiet():
            return _choose(model, probe, packing)
    finally:
        model.train(was_training)


def _choose(model: Any, probe: Pass, packing: bool) -> Forward:
    own = model.config._attn_implementation
    parts = torch.from_numpy(probe.tokens).split(probe.lengths)
    alone = torch.cat([model(input_ids=part[None], use_cache=False).logits[0] for part in parts])
    for decoder in _decoders(model):
        try:
            outputs = [decoder(input_ids=part[None], use_cache=False) for part in parts]
            hidden = torch.cat([output.last_hidden_state[0] for output in outputs])
            head = Head(model, decoder, type(outputs[0]))
            if not _close(head.logits(hidden), alone):
                continue
        except Exception:  # whatever a model does that is called in another way than its own
            continue
        if packing and _packs(model, decoder, probe, hidden):
            return Forward(model, decoder, head, True, IMPLEMENTATION)
        model.set_attn_implementation(own)
        rows, _, mask = _inputs(probe, False)
        if _close(_hidden(decoder, rows, None, mask).flatten(0, 1)[_padded_places(probe)], hidden):
            return Forward(model, decoder, head, False, own)
    return Forward(model, None, None, False, own)


def _packs(model: Any, decoder: nn.Module, probe: Pass, hidden: torch.Tensor) -> bool:
    layout: Layout = lay_out(probe.lengths)
    try:
        model.set_attn_implementation(IMPLEMENTATION)
        if model.config._attn_implementation != IMPLEMENTATION:
            return False
        with packed(layout):
            return _close(_hidden(decoder, *_inputs(probe, True))[0], hidden)
    except Exception:  # a model that has no such attention, or takes no positions, says so in many ways
        return False


def _decoders(model: Any) -> list[nn.Module]:
    """Modules of the model that may give its last hidden states."""
    found: list[nn.Module] = []
    for candidate in (model.get_decoder, lambda: model.base_model):
        try:
            decoder = candidate()
        except Exception:
            continue
        if isinstance(decoder, nn.Module) and decoder is not model and decoder not in found:
            found.append(decoder)
    return found


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= CLOSE * b.abs().max().clamp(min=1e-6))


def _probe(articles: Articles) -> Pass:
    """The longest article between two short ones of other lengths."""
    from bossa.train.batches import make_pass

    order = np.argsort(articles.lengths, kind="stable")
    chosen = [int(order[len(order) // 2]), int(order[-1]), int(order[len(order) // 4])]
    return make_pass(articles, chosen, 1.0)
