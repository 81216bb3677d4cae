"""The inputs and outputs of a session's calls: which tensor of the program is which of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from bossa.errors import SambaError
from bossa.samba.sections.graph import Argument, dtype_name
from bossa.samba.sections.trace import plain


def tensors(inputs: Any) -> list[torch.Tensor]:
    """The tensors of a program's inputs, in order, whatever they are nested in."""
    return [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]


def name_of(tensor: torch.Tensor) -> str | None:
    """The name of a `SambaTensor`; None for others."""
    return getattr(tensor, "sn_name", None)


def names_of(inputs: Any) -> list[str]:
    """A name for each tensor of the inputs: its own, the key of a mapping, or one by its place.

    Raises:
        SambaError: two have the same.
    """
    if isinstance(inputs, Mapping):
        keys = [key for key, value in inputs.items() for _ in tensors(value)]
    else:
        keys = [f"input_{number}" for number in range(len(tensors(inputs)))]
    names = [name_of(tensor) or str(key) for tensor, key in zip(tensors(inputs), keys, strict=True)]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise SambaError(f"two inputs are named {sorted(twice)[0]}: give each its own name in from_torch_tensor")
    return names


def bind(inputs: Any, arguments: Sequence[Argument]) -> list[torch.Tensor]:
    """The inputs of a call in the order of the graph: by name where they have one, the others by their place.

    Raises:
        SambaError: one is missing, unknown, there twice, or has another shape or type than was compiled.
    """
    leaves = tree_leaves(list(inputs.values()) if isinstance(inputs, Mapping) else inputs)
    if any(hasattr(leaf, "__array__") and not isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise SambaError("there is a NumPy array among the inputs: make it a tensor, and give it to from_torch_tensor")
    given = tensors(leaves)
    keys: list[str | None] = [name_of(tensor) for tensor in given]
    if isinstance(inputs, Mapping):
        own = [str(key) for key, value in inputs.items() for _ in tensors(value)]
        keys = [name or key for name, key in zip(keys, own, strict=True)]
    known = [argument.name for argument in arguments]
    found: dict[str, torch.Tensor] = {}
    for key, tensor in zip(keys, given, strict=True):
        if key is None:
            continue
        if key not in known:
            raise SambaError(f"input {key} is none of the compiled ones: they are {', '.join(known)}")
        if key in found:
            raise SambaError(f"input {key} is given twice")
        found[key] = tensor
    rest = iter([tensor for key, tensor in zip(keys, given, strict=True) if key is None])
    result = []
    for argument in arguments:
        tensor = found.get(argument.name)
        if tensor is None:
            tensor = next(rest, None)
        if tensor is None:
            raise SambaError(f"input {argument.name} is missing: name it so in from_torch_tensor, or give all in order")
        result.append(_checked(tensor, argument))
    extra = next(rest, None)
    if extra is not None:
        raise SambaError(
            f"an input of shape {list(extra.shape)} has no name, and all that were compiled are given:"
            f" {', '.join(known)}; name it by from_torch_tensor"
        )
    return result


def _checked(tensor: torch.Tensor, argument: Argument) -> torch.Tensor:
    spec = argument.spec
    if tuple(tensor.shape) != spec.shape or tensor.dtype != spec.dtype:
        shape, dtype = list(tensor.shape), dtype_name(tensor.dtype)
        raise SambaError(
            f"input {argument.name}: expected {dtype_name(spec.dtype)} of shape {list(spec.shape)}, got {dtype} of"
            f" shape {shape}"
        )
    return plain(tensor)
