"""What runs the sections ``fwd`` and ``bckwd``: compiled code, or the graph itself operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from bossa.samba.sections.device import Device
from bossa.samba.sections.graph import Graph
from bossa.samba.sections.noise import Noise
from bossa.samba.sections.partition import Operand

Call = Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]
"""Flat tensors in, flat tensors out."""


class Executor(Protocol):
    """What can serve the section ``fwd`` of a program; a session asks the first of its executors that can."""

    def can_run(self, rate: float | None) -> bool:
        """Whether it has the forward pass with dropouts at this rate, or at their own where it is None."""
        ...

    def run_forward(self, inputs: Sequence[torch.Tensor], rate: float | None) -> list[torch.Tensor]:
        """The outputs for these inputs, in the order of the graph; later calls do not write to them."""
        ...


@dataclass(frozen=True)
class Backward:
    """How to call the backward part: its inputs, how many tensors the forward part saves for it, what comes out."""

    operands: list[Operand]
    saved: int
    gradients: list[str]
    tangents: list[int]


@dataclass
class Activations:
    """What a forward call left for the backward one."""

    arguments: list[torch.Tensor]
    results: list[torch.Tensor]
    saved: list[torch.Tensor]


class SectionExecutor:
    """Calls the forward and the backward part on the state of a device.

    Args:
        graph: what the forward part takes and gives; its module is not used.
        forward: takes ``graph.arguments``; gives the outputs, the changed buffers, and what it saves.
        backward: takes the operands of `plan`; gives the gradients of `plan`. None where there is none.
        check: refuses inputs of which the forward part would fail without saying why.
    """

    def __init__(
        self,
        graph: Graph,
        device: Device,
        forward: Call,
        backward: Call | None = None,
        plan: Backward | None = None,
        check: Callable[[Sequence[torch.Tensor]], None] = lambda _inputs: None,
    ) -> None:
        self._check = check
        self._outputs = graph.outputs
        self._mutated = graph.mutated
        self._strides = [argument.spec.stride for argument in graph.named("input")]
        self._device = device
        self._fixed = graph.constants
        self._noise = Noise(graph)
        self._own_rates = [site.rate for site in graph.sites]
        self._dropped = graph.dropped
        self._forward, self._backward, self._plan = forward, backward, plan
        self._starts: dict[int, torch.Tensor] = {}
        self._kept: Activations | None = None

    def can_run(self, rate: float | None) -> bool:
        return all(
            dropped or (own if rate is None else rate) == 0.0
            for dropped, own in zip(self._dropped, self._own_rates, strict=True)
        )

    @property
    def has_activations(self) -> bool:
        """Whether a forward call has been made that no backward call has used up."""
        return self._kept is not None

    def forget(self) -> None:
        """Frees what the last forward call left."""
        self._kept = None

    def run_forward(self, inputs: Sequence[torch.Tensor], rate: float | None) -> list[torch.Tensor]:
        return self.forward(inputs, rate, alone=True)

    @torch.no_grad()
    def forward(self, inputs: Sequence[torch.Tensor], rate: float | None, *, alone: bool) -> list[torch.Tensor]:
        """The section ``fwd``: the outputs; the device's buffers change as the module changes them.

        Args:
            alone: whether the outputs are handed out before a backward call: it then has copies of its own of those
                that it needs, since the program may write to them.
        """
        self._check(inputs)
        self._kept = None
        device = self._device
        laid_out = [_laid_out(tensor, stride) for tensor, stride in zip(inputs, self._strides, strict=True)]
        arguments = [*device.parameters.values(), *device.buffers.values(), *laid_out, *self._fixed]
        arguments += self._noise.draw(rate)
        results = list(self._forward(arguments))
        count, changed = len(self._outputs), len(self._mutated)
        outputs, saved = results[:count], results[count + changed :]
        for name, tensor in zip(self._mutated, results[count:], strict=False):
            device.buffers[name] = tensor
        handed = _apart(outputs, saved)
        if self._plan is not None:
            needed = {operand.number for operand in self._plan.operands if operand.source == "result"}
            if alone:
                for number in needed & set(range(count)):
                    outputs[number] = handed[number].clone()
            # A backward pass in a later call reads the inputs as they were.
            self._kept = Activations(self._saved_arguments(arguments, alone), [*outputs, *results[count:]], saved)
        return handed

    def _saved_arguments(self, arguments: list[torch.Tensor], alone: bool) -> list[torch.Tensor]:
        """The arguments that the backward part reads; the program's own are copied where it may change them."""
        if not alone or self._plan is None:
            return arguments
        first = len(self._device.parameters) + len(self._device.buffers)
        last = first + len(self._strides)
        read = {operand.number for operand in self._plan.operands if operand.source == "argument"}
        return [
            tensor.clone() if first <= number < last and number in read else tensor
            for number, tensor in enumerate(arguments)
        ]

    @torch.no_grad()
    def backward(self, starts: dict[int, torch.Tensor]) -> None:
        """The section ``bckwd``: adds to the device's gradients. What the forward call left is used up.

        Args:
            starts: gradients of outputs by their number; the others are zero.
        """
        kept, plan = self._kept, self._plan
        assert kept is not None
        assert plan is not None
        assert self._backward is not None
        self._kept = None
        tangents = [starts[number] if number in starts else self._zeros(number) for number in plan.tangents]
        sources = {"argument": kept.arguments, "result": kept.results, "saved": kept.saved, "tangent": tangents}
        values = [_laid_out(sources[operand.source][operand.number], operand.stride) for operand in plan.operands]
        del kept, sources
        gradients = dict(zip(plan.gradients, _apart(self._backward(values), values), strict=True))
        device = self._device
        for name, gradient in gradients.items():
            gradients[name] = _laid_out(gradient, device.parameters[name].stride())
        device.accumulate(gradients)

    def _zeros(self, number: int) -> torch.Tensor:
        if number not in self._starts:
            self._starts[number] = torch.zeros(self._outputs[number].shape, dtype=self._outputs[number].dtype)
        return self._starts[number]


def _laid_out(tensor: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    """The tensor with these strides, copied where it has others."""
    if tensor.stride() == stride:
        return tensor
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)


def _apart(tensors: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors, copied where they share memory with one another or with others."""
    seen = {tensor.data_ptr() for tensor in others}
    result = []
    for tensor in tensors:
        if tensor.data_ptr() in seen and tensor.numel():
            tensor = tensor.clone()
        seen.add(tensor.data_ptr())
        result.append(tensor)
    return result
