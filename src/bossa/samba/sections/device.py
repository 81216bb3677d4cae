"""What a session keeps apart from the module: parameters, buffers, gradients and the state of optimizers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from bossa.errors import SambaError
from bossa.samba.copy_on_write import divide
from bossa.samba.sections import replicas
from bossa.samba.sections.optimizers import SectionOptimizer
from bossa.samba.sections.trace import device_layout, plain


class Device:
    """The state that sections work on; the module's own stays as it was until `fetch`.

    Args:
        divides: whether the parameters lie in the module's own pages until it writes to them: for sections that never
            do. Else they are a copy.

    Attributes:
        parameters, buffers: by name, in the module's order.
        gradients: of what was propagated back since the last step of the optimizers, by name.
        sent: how often the module's state was taken over.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[SectionOptimizer], *, divides: bool = False) -> None:
        self.optimizers = list(optimizers)
        self._divides = divides
        self.sent = 0
        with torch.no_grad():
            self.parameters = {name: device_layout(tensor).empty() for name, tensor in model.named_parameters()}
            self.buffers = {name: device_layout(tensor).empty() for name, tensor in model.named_buffers()}
        self.gradients: dict[str, torch.Tensor] = {}
        self._averaged = False
        self.send(model)

    @torch.no_grad()
    def send(self, model: nn.Module) -> None:
        """Takes over weights, buffers and the state of the optimizers; gradients are forgotten.

        Raises:
            SambaError: a tensor of the module has another shape or type than when it was traced.
        """
        for name, kept, found in self._pairs(model):
            divided = divide(found) if self._divides and name in self.parameters else None
            if divided is None:
                kept.copy_(plain(found))
            else:
                self.parameters[name] = divided
        self.sent += 1
        for optimizer in self.optimizers:
            optimizer.send()
        self.gradients = {}
        self._averaged = False

    @torch.no_grad()
    def fetch(self, model: nn.Module) -> None:
        """Gives the module a copy of weights, buffers, pending gradients and the state of the optimizers."""
        for _, kept, found in self._pairs(model):
            if not (self._divides and torch.equal(kept, plain(found))):  # what is written to takes memory of its own
                plain(found).copy_(kept)
        for name, parameter in model.named_parameters():
            gradient = self.gradients.get(name)
            parameter.grad = None if gradient is None else gradient.clone()
        for optimizer in self.optimizers:
            optimizer.fetch()

    def _pairs(self, model: nn.Module) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """Each tensor of the session's by its name, with the module's own."""
        both = (
            ("parameter", self.parameters, dict(model.named_parameters())),
            ("buffer", self.buffers, dict(model.named_buffers())),
        )
        for kind, kept, found in both:
            for name, tensor in kept.items():
                if name not in found or found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
                    raise SambaError(f"{kind} {name} is not what it was when the module was traced: trace it again")
        for _, kept, found in both:
            for name in kept:
                yield name, kept[name], found[name]

    @torch.no_grad()
    def accumulate(self, gradients: Mapping[str, torch.Tensor]) -> None:
        """Adds gradients to those that are there since the last step."""
        self._averaged = False
        both = [name for name in gradients if name in self.gradients]
        if both:
            torch._foreach_add_([self.gradients[name] for name in both], [gradients[name] for name in both])
        self.gradients.update({name: tensor for name, tensor in gradients.items() if name not in self.gradients})

    def average(self) -> None:
        """Averages the gradients with those of the other replicas, once."""
        if self._averaged or replicas.world_size() == 1:
            return
        replicas.join()
        replicas.average(self.gradients.values())
        self._averaged = True

    @torch.no_grad()
    def clip(self) -> None:
        """The section ``gradnorm``."""
        for optimizer in self.optimizers:
            optimizer.clip(self.gradients)

    def step(self, overrides: Mapping[str, float]) -> None:
        """The section ``opt``. The gradients are used up."""
        for optimizer in self.optimizers:
            optimizer.step(self.parameters, self.gradients, overrides)
        self.gradients = {}
        self._averaged = False
