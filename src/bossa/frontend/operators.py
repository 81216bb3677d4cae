"""The custom operators that stand for attention and its masks in a trace, and how transformers comes to call them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, masking_utils
from transformers.masking_utils import AttentionMaskInterface

from bossa.errors import CompileError

IMPLEMENTATION = "bossa"

_library = torch.library.Library("bossa", "DEF")
_library.define(
    "attention(Tensor q, Tensor k, Tensor v, Tensor? mask, float scale, int window, float softcap, Tensor? sinks)"
    " -> Tensor"
)
_library.define("mask(SymInt queries, SymInt keys, int index) -> Tensor")


@torch.library.register_fake("bossa::attention")
def _attention(q: Any, k: Any, v: Any, mask: Any, scale: Any, window: Any, softcap: Any, sinks: Any) -> Any:
    # [1, H, T, D], [1, G, T, D], [1, G, T, E] -> [1, T, H, E]
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3])


@torch.library.register_fake("bossa::mask")
def _mask(queries: Any, keys: Any, index: int) -> torch.Tensor:
    return torch.empty(1, 1, queries, keys, dtype=torch.bool, device="meta")


class MaskLog:
    """The mask functions that a trace asked for; the `bossa::mask` nodes refer to them by index."""

    def __init__(self) -> None:
        self.functions: list[Callable[..., Any]] = []


_log = MaskLog()

_HARMLESS = frozenset(
    "sliding_window softcap s_aux is_causal position_ids use_cache output_attentions cache_position layer_idx"
    " num_items_in_batch position_embeddings return_dict logits_to_keep output_hidden_states target_dtype"
    " local_rope_theta deterministic".split()
)
"""Arguments that attention functions get and that are known, or do not change what is computed without a cache."""


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    causal = kwargs.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", True)
    if attention_mask is None and not causal:
        raise CompileError(f"{type(module).__name__}: attention that is not causal cannot be compiled")
    unknown = {k for k, v in kwargs.items() if v is not None and v is not False} - _HARMLESS
    if unknown:
        raise CompileError(f"{type(module).__name__}: attention takes {sorted(unknown)}, which Bossa does not know")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    out = torch.ops.bossa.attention(
        query, key, value, attention_mask, float(scale),
        int(kwargs.get("sliding_window") or 0), float(kwargs.get("softcap") or 0.0), kwargs.get("s_aux"),
    )  # fmt: skip
    return out, None


def _make_mask(*, q_length: Any, kv_length: Any, mask_function: Callable[..., Any], **_: Any) -> torch.Tensor:
    if isinstance(q_length, torch.Tensor):
        q_length = q_length.shape[0]
    _log.functions.append(mask_function)
    return torch.ops.bossa.mask(q_length, kv_length, len(_log.functions) - 1)


AttentionInterface.register(IMPLEMENTATION, _attend)
AttentionMaskInterface.register(IMPLEMENTATION, _make_mask)


@contextmanager
def recorded_masks() -> Iterator[MaskLog]:
    """A fresh `MaskLog` for the masks of one trace.

    A trace is of one sequence, so transformers' search for several in one row of positions is off: what it adds to a
    mask would only repeat that.
    """
    global _log
    outer, _log = _log, MaskLog()
    search = getattr(masking_utils, "find_packed_sequence_indices", None)
    if search is not None:
        masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield _log
    finally:
        _log = outer
        if search is not None:
            masking_utils.find_packed_sequence_indices = search
