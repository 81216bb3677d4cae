"""The graph of a traced module: operators over tensors, and what its inputs and outputs are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import fx

from bossa.samba.sections.dropout import Site

Role = Literal["parameter", "buffer", "input", "constant", "mask", "coefficients", "draw"]


@dataclass(frozen=True)
class Spec:
    """What a tensor is, without its values; strides are those that compiled code expects."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Spec:
        return cls(tuple(tensor.shape), tensor.dtype, tuple(tensor.stride()))

    def empty(self) -> torch.Tensor:
        """A tensor like this, its values undefined."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype)

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)}[{','.join(map(str, self.shape))}]"


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Draw:
    """A random operator that the graph takes as an input: `target(*args)`, a `Spec` for a tensor like it."""

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Argument:
    """One input of a graph: its role, its name or number among those of that role, and what tensor it takes."""

    role: Role
    name: str
    spec: Spec


@dataclass
class Graph:
    """One graph over flat tensors, with everything that its inputs and outputs mean.

    Attributes:
        module: placeholders in the order of `arguments`, then one ``tangents_i`` for each of `tangents`; the output is
            `outputs`, the buffers of `mutated`, and in a joint graph a gradient, or None, for each argument before the
            constants.
        arguments: what each input is.
        outputs: the tensors that the module returned, in order.
        mutated: names of the buffers that a call changes.
        tangents: joint graphs: the outputs that gradients start at, by number.
        sites: the dropouts, in order.
        dropped: for each of them, whether it is in the graph.
        constants: tensors that the module holds without having registered them.
        draws: random operators other than dropout.
    """

    module: fx.GraphModule
    arguments: list[Argument]
    outputs: list[Spec]
    mutated: list[str]
    sites: list[Site]
    dropped: list[bool]
    constants: list[torch.Tensor]
    draws: list[Draw]
    tangents: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.module.graph.lint()

    def named(self, role: Role) -> list[Argument]:
        """The arguments of one role, in order."""
        return [argument for argument in self.arguments if argument.role == role]
