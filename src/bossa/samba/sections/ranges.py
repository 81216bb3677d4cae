"""Indices of embeddings and classes of losses, looked at before a section runs.

Compiled code looks too, but in threads from which an error cannot come back: it ends the process. So the part of the
graph that makes indices of the inputs, a few operators on integers, is run by itself first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from bossa.errors import SambaError
from bossa.samba.sections.graph import Graph

_aten = torch.ops.aten
_EMBEDDINGS = (_aten.embedding, _aten._embedding_bag, _aten._embedding_bag_forward_only)
_LOSSES = (_aten.nll_loss_forward, _aten.nll_loss2d_forward)
_MOST = 64
"""Operators that may be run for a look; indices that are computed in more are left to torch."""


@dataclass(frozen=True)
class _Use:
    """Integers that have to be from 0 to below `bound`, or `ignored`."""

    name: str
    what: str
    bound: int
    ignored: int | None


class Ranges:
    """What the integers among the inputs of a graph may be; a forward graph with operators as torch has them."""

    def __init__(self, graph: Graph) -> None:
        places = dict(zip(graph.module.graph.find_nodes(op="placeholder"), graph.arguments, strict=True))
        known = {node: argument for node, argument in places.items() if argument.role in ("input", "constant")}
        self._constants = graph.constants
        self._uses: list[_Use] = []
        part = fx.Graph()
        copies = {node: part.placeholder(node.name) for node in known}
        found = []
        for node in graph.module.graph.nodes:
            use = _use_of(node)
            if use is None:
                continue
            indices, what, bound, ignored = use
            above = _above(indices)
            inputs = [known[at].name for at in above if at in known and known[at].role == "input"]
            if len(above) > _MOST or not inputs or any(at.op == "placeholder" and at not in known for at in above):
                continue
            for at in above:
                if at not in copies:
                    copies[at] = part.node_copy(at, lambda other: copies[other])
            found.append(copies[indices])
            self._uses.append(_Use(" and ".join(inputs), what, bound, ignored))
        part.output(tuple(found))
        self._part = fx.GraphModule(torch.nn.Module(), part)

    @torch.no_grad()
    def check(self, inputs: Sequence[torch.Tensor]) -> None:
        """Looks at the inputs of a call, in the order of the graph.

        Raises:
            SambaError: an integer among them is out of range.
        """
        if not self._uses:
            return
        for use, values in zip(self._uses, self._part(*inputs, *self._constants), strict=True):
            wrong = (values < 0) | (values >= use.bound)
            if use.ignored is not None:
                wrong &= values != use.ignored
            if bool(wrong.any()):
                raise SambaError(
                    f"input {use.name}: {int(values[wrong][0])} is out of range: {use.what} takes 0 to {use.bound - 1}"
                )


def _use_of(node: fx.Node) -> tuple[fx.Node, str, int, int | None] | None:
    """What a node looks up by which integers."""
    if node.op != "call_function":
        return None
    kind = getattr(node.target, "overloadpacket", None)
    path = node.meta.get("custom", {}).get("module", "")
    if kind in _EMBEDDINGS:
        table, indices = node.args[:2]
        assert isinstance(table, fx.Node)
        assert isinstance(indices, fx.Node)
        return indices, f"embedding {path}".rstrip(), int(table.meta["val"].shape[0]), None
    if kind in _LOSSES:
        scores, targets, _, _, ignored = node.args
        assert isinstance(scores, fx.Node)
        assert isinstance(targets, fx.Node)
        shape = scores.meta["val"].shape
        return targets, "the loss", int(shape[1] if len(shape) > 1 else shape[0]), int(str(ignored))
    return None


def _above(node: fx.Node) -> list[fx.Node]:
    """All that a node is computed from and itself, each behind what it needs."""
    order: dict[fx.Node, None] = {}

    def visit(at: fx.Node) -> None:
        if at not in order and len(order) <= _MOST:
            for needed in at.all_input_nodes:
                visit(needed)
            order[at] = None

    visit(node)
    return list(order)
