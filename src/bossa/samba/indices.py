"""Short integers as embedding indices and class targets.

torch takes int64 for both, int32 for embeddings alone, and int16 for neither. Programs written for SambaFlow pass int32
and int16, and store token ids above 32,767 as the int16 with the same bits; these are read modulo 65,536 here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  as everyone calls it
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

SHORT = (torch.int16, torch.int32)

_INDICES: dict[Callable[..., Any], tuple[int, str]] = {
    F.embedding: (0, "input"),
    F.embedding_bag: (0, "input"),
    torch.embedding: (1, "indices"),
}
"""Where the indices of an embedding are: the place among the arguments, and the keyword."""

_TARGETS: dict[Callable[..., Any], tuple[int, int, str]] = {
    F.cross_entropy: (1, 4, "target"),
    F.nll_loss: (1, 4, "target"),
}
"""The same for class targets, with the place of ``ignore_index`` between."""

_IGNORED = -100
"""What torch's losses ignore where a program says nothing else."""


def widen_indices(indices: torch.Tensor) -> torch.Tensor:
    """Indices of any integer type as int64, int16 ones modulo 65,536; other tensors as they are."""
    if indices.dtype not in SHORT:
        return indices
    wide = indices.to(torch.int64)
    return wide & 0xFFFF if indices.dtype == torch.int16 else wide


def widen_targets(targets: torch.Tensor, ignore_index: int = _IGNORED) -> torch.Tensor:
    """Class targets as `widen_indices` makes them, except that an int16 ``ignore_index`` stays what it is."""
    wide = widen_indices(targets)
    if targets.dtype != torch.int16:
        return wide
    return torch.where(targets == ignore_index, targets.to(torch.int64), wide)


def widened(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a torch function with short indices and targets made int64, where it takes any."""
    if function in _INDICES:
        return _replaced(*_INDICES[function], widen_indices, args, kwargs)
    if function in _TARGETS:
        place, ignore_place, name = _TARGETS[function]
        given = args[ignore_place] if len(args) > ignore_place else kwargs.get("ignore_index", _IGNORED)
        return _replaced(place, name, lambda targets: widen_targets(targets, given), args, kwargs)
    return args, kwargs


def _replaced(
    place: int,
    name: str,
    widen: Callable[[torch.Tensor], torch.Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if len(args) > place:
        return (*args[:place], widen(args[place]), *args[place + 1 :]), kwargs
    if name in kwargs:
        return args, {**kwargs, name: widen(kwargs[name])}
    return args, kwargs


class accepting_short_indices(TorchFunctionMode):  # noqa: N801  used as a with statement, as torch.no_grad is
    """Within it, every embedding and classification loss takes int16 and int32, also in a traced module."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        args, kwargs = widened(func, args, kwargs or {})
        return func(*args, **kwargs)


class _Calls(threading.local):
    """The calls of converted modules that are under way in this thread, each with the mode that it entered."""

    def __init__(self) -> None:
        self.stack: list[tuple[nn.Module, accepting_short_indices | None]] = []


_calls = _Calls()


def accept_short_indices_(module: nn.Module) -> None:
    """Let a module that is called by hand take short integers too. Calls without any pay for a look at their inputs."""
    if _enter not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_enter, with_kwargs=True)
        module.register_forward_hook(_leave, always_call=True)


def _enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if torch.compiler.is_compiling():
        return
    short = any(isinstance(leaf, torch.Tensor) and leaf.dtype in SHORT for leaf in tree_leaves((args, kwargs)))
    mode = accepting_short_indices() if short else None
    if mode is not None:
        mode.__enter__()
    _calls.stack.append((module, mode))


def _leave(module: nn.Module, _args: tuple[Any, ...], _result: Any) -> None:
    # Also called when the module failed, even before `_enter` was.
    if _calls.stack and _calls.stack[-1][0] is module:
        _, mode = _calls.stack.pop()
        if mode is not None:
            mode.__exit__(None, None, None)
