"""A joint graph in two: the forward part, and the backward part with what it wants of the forward one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from functorch.compile import min_cut_rematerialization_partition
from torch import fx
from torch._inductor import config as inductor_config
from torch._inductor.compile_fx import _recursive_joint_graph_passes

from bossa.samba.sections.graph import Graph

Source = Literal["argument", "result", "saved", "tangent"]


@dataclass(frozen=True)
class Operand:
    """Where one input of the backward part comes from, by number, and the strides that it expects.

    It is an argument or a result of the call, a tensor that the forward part saved, or a gradient to start from (as
    `Graph.tangents` numbers them).
    """

    source: Source
    number: int
    stride: tuple[int, ...]


@dataclass
class Parts:
    """A forward graph whose outputs are the results, then what it saves; and a backward graph over `operands`.

    `gradients` names the parameter that each output of the backward graph belongs to: those that the results do not
    depend on have none.
    """

    forward: fx.GraphModule
    backward: fx.GraphModule
    saved: int
    operands: list[Operand]
    gradients: list[str]


def partition(graph: Graph) -> Parts:
    """Divides a joint graph so that little is saved, and what is cheap is computed again. The graph is used up."""
    results = len(graph.outputs) + len(graph.mutated)
    with inductor_config.patch(fallback_random=True):
        _recursive_joint_graph_passes(graph.module)
        forward, backward = min_cut_rematerialization_partition(graph.module, None, num_fwd_outputs=results)

    inputs = [node for node in forward.graph.nodes if node.op == "placeholder"]
    places = {node: number for number, node in enumerate(inputs)}
    output = forward.graph.output_node()
    values = list(output.args[0])
    kept, sources = values[:results], list[tuple[Source, int]]()
    for value in values[results:]:
        if value in places:
            sources.append(("argument", places[value]))
        elif value in kept[:results]:
            sources.append(("result", kept.index(value)))
        else:
            sources.append(("saved", len(kept) - results))
            kept.append(value)
    output.args = (tuple(kept),)
    forward.recompile()

    placeholders = [node for node in backward.graph.nodes if node.op == "placeholder"]
    tangents = iter(range(len(placeholders)))
    starts = iter(sources)
    operands = []
    for node in placeholders:
        place: tuple[Source, int] = ("tangent", next(tangents)) if "tangents" in node.target else next(starts)
        operands.append(Operand(*place, tuple(node.meta["val"].stride())))

    output = backward.graph.output_node()
    # One for each argument that was there when the gradients were traced.
    owners = zip(graph.arguments, output.args[0], strict=False)
    gradients = {argument.name: value for argument, value in owners if value is not None}
    output.args = (tuple(gradients.values()),)
    backward.graph.eliminate_dead_code()
    backward.recompile()
    return Parts(forward, backward, len(kept) - results, operands, list(gradients))
