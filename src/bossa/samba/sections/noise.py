"""The random inputs of a graph, drawn before each forward pass as eager torch draws them in it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils._pytree import tree_map_only

from bossa.samba.sections.dropout import Site, coefficients
from bossa.samba.sections.graph import Argument, Draw, Graph, Spec


class Noise:
    """The masks, coefficients and other random numbers that a graph takes, from torch's default generator."""

    def __init__(self, graph: Graph) -> None:
        self._steps: list[Callable[[float | None], torch.Tensor]] = []
        for argument in graph.arguments:
            step = self._step(argument, graph)
            if step is not None:
                self._steps.append(step)
        self._full: dict[tuple[Spec, bool], torch.Tensor] = {}
        self._coefficients: dict[tuple[Site, float, torch.dtype], torch.Tensor] = {}

    def draw(self, rate: float | None) -> list[torch.Tensor]:
        """Tensors for the arguments of the roles mask, coefficients and draw, in order.

        Args:
            rate: of all dropouts; None for each dropout's own.
        """
        return [step(rate) for step in self._steps]

    def _step(self, argument: Argument, graph: Graph) -> Callable[[float | None], torch.Tensor] | None:
        spec = argument.spec
        if argument.role == "draw":
            draw = graph.draws[int(argument.name)]
            return lambda _: _drawn(draw)
        if argument.role not in ("mask", "coefficients"):
            return None
        site = graph.sites[int(argument.name)]
        if argument.role == "mask":
            return lambda rate: self._mask(spec, site.rate if rate is None else rate)
        return lambda rate: self._of_rate(site, site.rate if rate is None else rate, spec.dtype)

    def _mask(self, spec: Spec, rate: float) -> torch.Tensor:
        """Which elements are kept. Like torch, nothing is drawn where that is all or none of them."""
        if 0.0 < rate < 1.0:
            return spec.empty().bernoulli_(1 - rate)
        key = (spec, rate == 0.0)
        if key not in self._full:
            self._full[key] = spec.empty().fill_(rate == 0.0)
        return self._full[key]

    def _of_rate(self, site: Site, rate: float, dtype: torch.dtype) -> torch.Tensor:
        key = (site, rate, dtype)
        if key not in self._coefficients:
            self._coefficients[key] = coefficients(site, rate, dtype)
        return self._coefficients[key]


def _drawn(draw: Draw) -> torch.Tensor:
    args, kwargs = tree_map_only(Spec, Spec.empty, (draw.args, draw.kwargs))
    return draw.target(*args, **kwargs)
