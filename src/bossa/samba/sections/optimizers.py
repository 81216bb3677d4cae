"""The sections ``gradnorm`` and ``opt``: clipping and steps of SGD, Adam and AdamW on the tensors that a session holds.

The steps are torch's own fused kernels, which read and write each tensor once: there is nothing left to compile, and
learning rate, momentum and weight decay are plain arguments of a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn, optim

from bossa.errors import SambaError

Tensors = dict[str, torch.Tensor]
OVERRIDES = ("lr", "momentum", "weight_decay")


class SectionOptimizer:
    """An optimizer of a program, its state kept beside the session's parameters.

    Args:
        optimizer: `torch.optim.SGD`, `Adam` or `AdamW`, or a subclass; its groups are looked at in every step, so that
            schedules of the learning rate work. Its own state is neither read nor written but by `send` and `fetch`.
        model: the module whose parameters it trains.

    Raises:
        SambaError: it is of another kind, or holds a parameter that the module does not.
    """

    def __init__(self, optimizer: optim.Optimizer, model: nn.Module) -> None:
        if not isinstance(optimizer, optim.SGD | optim.Adam):
            raise SambaError(
                f"a session trains with SGD, Adam or AdamW, not with {type(optimizer).__name__}: use samba.optim"
            )
        self.optimizer = optimizer
        self.kind = "SGD" if isinstance(optimizer, optim.SGD) else "Adam"
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.groups: list[list[str]] = []
        for number, group in enumerate(optimizer.param_groups):
            strange = [parameter for parameter in group["params"] if id(parameter) not in names]
            if strange:
                raise SambaError(
                    f"{type(optimizer).__name__}: group {number} has a parameter of shape {list(strange[0].shape)} that"
                    " is not one of the model's: make the optimizer of the parameters of the model that is traced"
                )
            self.groups.append([names[id(parameter)] for parameter in group["params"]])
        self.state: dict[str, dict[str, torch.Tensor]] = {}

    def describe(self) -> list[str]:
        """A line for the optimizer and one for each group, the same for optimizers that train alike."""
        decoupled = self.kind == "Adam" and self.optimizer.param_groups[0].get("decoupled_weight_decay")
        name = "AdamW" if decoupled else self.kind
        return [f"optimizer {name}", *(f"group {' '.join(group)}" for group in self.groups)]

    def send(self) -> None:
        """Takes over the state that the optimizer has."""
        self.state = {name: _copied(self.optimizer.state.get(parameter, {})) for name, parameter in self._pairs()}

    def fetch(self) -> None:
        """Gives the optimizer a copy of the state as it is now."""
        for name, parameter in self._pairs():
            state: dict[str, Any] = dict(_copied(self.state.get(name, {})))
            if self.kind == "SGD" and state:
                state = {"momentum_buffer": None, **state}
            if state:
                self.optimizer.state[parameter] = state

    def _pairs(self) -> list[tuple[str, torch.Tensor]]:
        return [
            (name, parameter)
            for names, group in zip(self.groups, self.optimizer.param_groups, strict=True)
            for name, parameter in zip(names, group["params"], strict=True)
        ]

    def clip(self, gradients: Tensors) -> None:
        """Scales the gradients of this optimizer's parameters in place, so that their norm is at most its own.

        An optimizer without ``max_grad_norm`` leaves them alone.
        """
        largest = getattr(self.optimizer, "max_grad_norm", None)
        own = [gradients[name] for names in self.groups for name in names if name in gradients]
        if largest is None or not own:
            return
        norm = nn.utils.get_total_norm(own, foreach=True)
        torch._foreach_mul_(own, torch.clamp(float(largest) / (norm + 1e-6), max=1.0))

    @torch.no_grad()
    def step(self, parameters: Tensors, gradients: Tensors, overrides: Mapping[str, float]) -> None:
        """One step, in place; parameters without a gradient stay as they are."""
        for names, group in zip(self.groups, self.optimizer.param_groups, strict=True):
            present = [name for name in names if name in gradients]
            if present:
                (self._sgd if self.kind == "SGD" else self._adam)(
                    present, parameters, gradients, {**group, **overrides}
                )

    def _adam(self, names: list[str], parameters: Tensors, gradients: Tensors, group: Mapping[str, Any]) -> None:
        averages = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        for name in names:
            if not self.state.get(name):
                self.state[name] = {key: torch.zeros_like(parameters[name]) for key in averages}
                self.state[name]["step"] = torch.tensor(0.0)
        states = [self.state[name] for name in names]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        beta1, beta2 = group["betas"]
        step = torch._fused_adamw_ if group.get("decoupled_weight_decay") else torch._fused_adam_
        step(
            [parameters[name] for name in names],
            [gradients[name] for name in names],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else [],
            steps,
            lr=float(group["lr"]),
            beta1=float(beta1),
            beta2=float(beta2),
            weight_decay=float(group["weight_decay"]),
            eps=float(group["eps"]),
            amsgrad=bool(group["amsgrad"]),
            maximize=bool(group["maximize"]),
        )

    def _sgd(self, names: list[str], parameters: Tensors, gradients: Tensors, group: Mapping[str, Any]) -> None:
        momentum = float(group["momentum"])
        if momentum == 0.0:
            _fused_sgd(parameters, gradients, names, [], group, first=False)
            return
        fresh = [name for name in names if "momentum_buffer" not in self.state.setdefault(name, {})]
        for name in fresh:
            self.state[name]["momentum_buffer"] = torch.empty_like(parameters[name])
        new = set(fresh)
        for part, first in ((fresh, True), ([name for name in names if name not in new], False)):
            buffers = [self.state[name]["momentum_buffer"] for name in part]
            if part:
                _fused_sgd(parameters, gradients, part, buffers, group, first=first)


def _fused_sgd(
    parameters: Tensors,
    gradients: Tensors,
    names: Sequence[str],
    buffers: list[torch.Tensor],
    group: Mapping[str, Any],
    *,
    first: bool,
) -> None:
    torch._fused_sgd_(
        [parameters[name] for name in names],
        [gradients[name] for name in names],
        buffers,
        weight_decay=float(group["weight_decay"]),
        momentum=float(group["momentum"]),
        lr=float(group["lr"]),
        dampening=float(group["dampening"]),
        nesterov=bool(group["nesterov"]),
        maximize=bool(group["maximize"]),
        is_first_step=first,
    )


def _copied(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a parameter's state, each a copy in memory of its own."""
    return {
        key: value.detach().as_subclass(torch.Tensor).clone()
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def listed(optimizers: Any) -> list[optim.Optimizer]:
    """One optimizer, several, or None, as a list."""
    if optimizers is None:
        return []
    return list(cast(Sequence[Any], optimizers)) if isinstance(optimizers, list | tuple) else [optimizers]
