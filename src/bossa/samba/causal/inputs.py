"""The inputs of a causal language model: which they are in a graph, and where a call's sequences end."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._pytree import tree_leaves

from bossa.errors import CompileError
from bossa.samba.sections.graph import Argument

Ints = NDArray[np.int32]

ROLES = ("input_ids", "attention_mask", "position_ids")


@dataclass(frozen=True)
class Roles:
    """What a program gives to the model's forward.

    Attributes:
        numbers: of each of `ROLES` that is a tensor, its number among the tensors.
        options: the arguments that are neither tensors nor None.
    """

    numbers: dict[str, int]
    options: dict[str, Any]


def roles_of(model: nn.Module, inputs: Sequence[Any] | Mapping[str, Any]) -> Roles:
    """Finds the arguments by the signature of the model's forward.

    Raises:
        CompileError: there are tensors with other roles, or no ids.
    """
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(**inputs) if isinstance(inputs, Mapping) else signature.bind(*inputs)
    except TypeError as error:
        raise CompileError(f"its inputs do not fit its forward ({error})") from None
    leaves = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    places = {id(leaf): number for number, leaf in enumerate(leaves)}
    numbers: dict[str, int] = {}
    options: dict[str, Any] = {}
    for name, value in _arguments(bound):
        if not isinstance(value, torch.Tensor):
            if value is not None:
                options[name] = value
        elif name not in ROLES:
            raise CompileError(f"it takes the tensor {name}, and not only {', '.join(ROLES)}")
        else:
            numbers[name] = places[id(value)]
    if "input_ids" not in numbers or len(numbers) != len(leaves):
        raise CompileError(f"it takes other tensors than {', '.join(ROLES)}")
    return Roles(numbers, options)


def _arguments(bound: inspect.BoundArguments) -> Iterator[tuple[str, Any]]:
    """Every argument by its name, those of ``**kwargs`` too; those of ``*args`` have none."""
    for name, value in bound.arguments.items():
        match bound.signature.parameters[name].kind:
            case inspect.Parameter.VAR_KEYWORD:
                yield from value.items()
            case inspect.Parameter.VAR_POSITIONAL:
                raise CompileError(f"its forward takes *{name}, whose roles are not known")
            case _:
                yield name, value


def check_shapes(numbers: Mapping[str, int], inputs: Sequence[Argument]) -> tuple[int, int]:
    """The batch and the length of a graph that takes ids [b, L], a mask [b, L] or [b, 1, L], and positions [b, L].

    Raises:
        CompileError: a tensor has another shape.
    """
    shapes = {role: tuple(inputs[number].spec.shape) for role, number in numbers.items()}
    ids = shapes["input_ids"]
    if len(ids) != 2 or ids[1] < 2:
        raise CompileError(f"its input_ids have shape {list(ids)}, and not [batch, length]")
    b, length = ids
    allowed: dict[str, list[tuple[int, ...]]] = {
        "input_ids": [ids],
        "attention_mask": [ids, (b, 1, length), (b, 1, 1, length)],
        "position_ids": [ids, (1, length), (length,)],
    }
    for role, shape in shapes.items():
        if shape not in allowed[role]:
            raise CompileError(f"its {role} have shape {list(shape)}, for ids of shape {list(ids)}")
    return b, length


def tokens_of(ids: torch.Tensor) -> Ints:
    """Ids as int32; int16 ones are read modulo 65,536, as embeddings read them here. [b, L]"""
    array = np.asarray(ids.numpy())
    return array.astype(np.uint16).astype(np.int32) if array.dtype == np.int16 else array.astype(np.int32, copy=False)


def lengths_of(ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor | None) -> list[int] | None:
    """The length of each sequence: the ones at the front of its mask, all else zeros, its positions 0, 1, 2 and so on.

    Returns:
        None where a mask or positions are anything else.
    """
    b, length = ids.shape
    if mask is None:
        lengths = [length] * b
    else:
        rows = mask.numpy().reshape(b, length)
        ones = rows == 1
        lengths = [int(count) for count in ones.sum(axis=1)]
        if any(not ones[row, :count].all() or rows[row, count:].any() for row, count in enumerate(lengths)):
            return None
    if positions is not None:
        given = np.broadcast_to(tokens_of(positions), (b, length))
        natural = np.arange(length, dtype=np.int32)
        if any(not np.array_equal(given[row, :count], natural[:count]) for row, count in enumerate(lengths)):
            return None
    return lengths
