"""Tracing a model into one graph over T rows with `torch.export`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode
from transformers import PretrainedConfig

from bossa.errors import CompileError
from bossa.frontend.blame import Blame
from bossa.frontend.operators import MaskLog, recorded_masks
from bossa.frontend.quiet import quiet
from bossa.frontend.reasons import one_line
from bossa.frontend.sizes import odd_rotation

KEPT = (
    "linear", "addmm", "mm", "matmul", "bmm", "baddbmm", "layer_norm", "softmax", "_softmax", "embedding", "gelu",
    "silu", "scaled_dot_product_attention", "softplus", "rms_norm", "split", "split_with_sizes", "chunk", "unbind",
    "stack", "repeat", "repeat_interleave", "masked_fill", "where", "t", "transpose", "slice", "select", "cat",
    "clamp", "rsub", "cumsum", "diff", "gather", "index", "arange", "full", "zeros", "ones", "triu", "tril", "pow",
)  # fmt: skip
"""Operators that lowering knows, or that only ever work on positions: not decomposed further."""


@dataclass(frozen=True)
class Trace:
    """An exported model, the values of its computed buffers by path, and the masks it asked for."""

    exported: ExportedProgram
    model: torch.nn.Module
    buffers: dict[str, torch.Tensor]
    masks: MaskLog


Call = Callable[[Any, torch.Tensor], torch.Tensor]
"""From a model and its ``input_ids`` [1, T] to the logits [1, T, V]."""


def call_model(model: Any, input_ids: torch.Tensor) -> torch.Tensor:
    """The logits of a model of transformers' own."""
    logits: torch.Tensor = model(input_ids=input_ids, use_cache=False, return_dict=True).logits
    return logits


class _Logits(torch.nn.Module):
    def __init__(self, model: torch.nn.Module, call: Call, blame: Blame) -> None:
        super().__init__()
        self.model = model
        self.call = call
        self.blame = blame

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:  # [1, T] -> [1, T, V]
        with self.blame, _KeepNumbers():
            return self.call(self.model, input_ids)


class _KeepNumbers(TorchFunctionMode):
    """Numbers in a forward stay numbers in the graph: on ``meta`` a tensor made of them would have lost its values.

    Indexing by a list becomes slices, ``torch.tensor`` of a number or a flat list becomes ``torch.full``.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.__getitem__ and isinstance(args[1], (tuple, list)):
            tensor, index = args
            index = index if isinstance(index, tuple) else (index,)
            lists = [i for i, entry in enumerate(index) if isinstance(entry, list) and entry]
            if len(lists) == 1 and all(isinstance(n, int) for n in index[lists[0]]):
                at = lists[0]
                before, after = index[:at], index[at + 1 :]
                parts = [tensor[(*before, slice(n, n + 1 or None), *after)] for n in index[at]]
                axis = sum(not isinstance(entry, int) and entry is not None for entry in before)
                axis = tensor.ndim - (len(index) - at) if Ellipsis in before else axis
                return parts[0] if len(parts) == 1 else torch.cat(parts, axis)
        if function is torch.tensor and isinstance(args[0], (int, float, bool, list, tuple)):
            data, options = args[0], {k: v for k, v in (kwargs or {}).items() if k in ("dtype", "device")}
            if not isinstance(data, (list, tuple)):
                return torch.full((), data, **options)
            if data and all(isinstance(n, (int, float, bool)) for n in data):
                if "dtype" not in options:
                    options["dtype"] = torch.tensor(data).dtype
                return torch.stack([torch.full((), n, **options) for n in data])
        return function(*args, **(kwargs or {}))


def trace_model(model: torch.nn.Module, max_seq_length: int, call: Call = call_model) -> Trace:
    """Export ``call(model, input_ids[1, T])`` with T dynamic; parameters stay on ``meta``.

    Raises:
        CompileError: the export failed; the message has the operator, the module and the first line of the cause.
    """
    # Not the maximum itself: where T may equal the length of a mask buffer, the export would ask for a case of its own.
    longest = max(max_seq_length - 1, 3)
    rows = Dim("T", min=2, max=longest)
    blame = Blame(model, range(2, longest + 1))
    buffers = _to_meta(model)
    ids = torch.zeros(1, min(7, max_seq_length), dtype=torch.long, device="meta")
    with recorded_masks() as masks, quiet(), torch.no_grad():
        try:
            exported = torch.export.export(
                _Logits(model, call, blame), (ids,), dynamic_shapes=({1: rows},), strict=False
            )
            exported = exported.run_decompositions(_decompositions())
        except CompileError:
            raise
        except Exception as error:  # whatever export raises, the user gets one line
            cause = one_line(error, 300)
            if cause.startswith("Constraints violated"):
                cause = "its graph depends on the sequence's length, as in recurrent models, which are not supported"
            config = getattr(model, "config", None)
            fits = not cause.startswith("The size of tensor") or not isinstance(config, PretrainedConfig)
            odd = "" if fits else odd_rotation(config)
            why = odd and f": {odd}, and rotary positions want an even number: correct the config"
            raise CompileError(f"{blame.place}: {type(model).__name__} cannot be traced: {cause}{why}") from error
    return Trace(exported, model, buffers, masks)


def _to_meta(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Move the computed buffers to ``meta``, where the rest of the model is, and return their values."""
    values = {path: buffer for path, buffer in model.named_buffers(remove_duplicate=False) if not buffer.is_meta}
    for path in values:
        owner, _, name = path.rpartition(".")
        module = model.get_submodule(owner)
        module._buffers[name] = values[path].to("meta")
    return values


def _decompositions() -> dict[Any, Any]:
    table = torch.export.default_decompositions()
    return {op: rule for op, rule in table.items() if op.name().split("::")[1].split(".")[0] not in KEPT}
