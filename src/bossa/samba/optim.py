"""Optimizers that a session compiles into sections; called by hand they are torch's, and mean the same.

State and its dictionary are those of `torch.optim.SGD` and `torch.optim.AdamW`, so that a checkpoint of one loads in
the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import optim


class SGD(optim.SGD):
    """Gradient descent with momentum ``v ← momentum · v + g``, ``g`` with the L2 gradient of ``weight_decay``."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(_listed(params), lr=lr, momentum=momentum, weight_decay=weight_decay)


class AdamW(optim.AdamW):
    """Adam with decoupled weight decay, the gradients clipped before to ``max_grad_norm`` where one is given.

    The norm is the one over all parameters of this optimizer, whatever groups they are in, and of no other's.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        max_grad_norm: float | None = None,
    ) -> None:
        super().__init__(_listed(params), lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        self.max_grad_norm = max_grad_norm

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.max_grad_norm is not None:
            parameters = [parameter for group in self.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        super().step()
        return loss


def _listed(params: Iterable[Any]) -> list[Any]:
    # torch refuses sets, since they have no order; `sambacollections.OrderedSet` has one.
    return list(params)
