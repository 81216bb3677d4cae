"""What a graph holds and draws becomes its inputs: tensors it closed over, masks of dropouts, other random numbers.

Random numbers are then drawn by torch's own operators before the graph runs, in the order in which they stood in it, so
that the same seed gives what eager torch draws, and compiled code needs no generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from bossa.errors import CompileError
from bossa.samba.sections.dropout import Site
from bossa.samba.sections.graph import Argument, Draw, Role, Spec

_ONLY_LIKE = frozenset(
    {"rand_like", "randn_like", "randint_like", "bernoulli", "uniform", "normal_functional", "exponential"}
    | {"log_normal", "geometric", "cauchy", "random"}
)
"""Random operators that take from a tensor its shape and type alone; `bernoulli` where its rate is a number."""


def lift_constants(module: fx.GraphModule, arguments: list[Argument]) -> list[torch.Tensor]:
    """Makes the tensors that the graph holds into inputs behind those that there are, and returns them."""
    values: dict[str, torch.Tensor] = {}
    for node in [node for node in module.graph.nodes if node.op == "get_attr"]:
        value = getattr(module, node.target, None)
        if not isinstance(value, torch.Tensor):
            continue
        if node.target not in values:
            values[node.target] = value.detach().as_subclass(torch.Tensor).clone()
            argument = Argument("constant", str(len(values) - 1), Spec.of(values[node.target]))
            _placeholder(module, arguments, argument, node.meta.get("val"), node.target)
        node.replace_all_uses_with(_placed(module, node.target))
        module.graph.erase_node(node)
    for name in values:
        delattr(module, name)
    return list(values.values())


def lift_draws(module: fx.GraphModule, arguments: list[Argument], sites: Sequence[Site]) -> list[Draw]:
    """Makes masks, their coefficients and other random numbers into inputs, in the order in which they are drawn.

    Raises:
        CompileError: random numbers are drawn in a way that depends on values.
    """
    draws: list[Draw] = []
    for node in [node for node in module.graph.nodes if _is_random(node)]:
        if node.target is torch.ops.bossa.noise.default:
            site = node.args[2]
            mask, coefficients = (
                _placeholder(module, arguments, Argument(role, str(site), Spec.of(value)), value, f"{role}_{site}")
                for role, value in zip(_MASK, node.meta["val"], strict=True)
            )
            for user in list(node.users):
                user.replace_all_uses_with((mask, coefficients)[user.args[1]])
                module.graph.erase_node(user)
        else:
            _check(node)
            args, kwargs = map_arg((node.args, node.kwargs), lambda operand: Spec.of(operand.meta["val"]))
            draws.append(Draw(node.target, tuple(args), dict(kwargs)))
            number = str(len(draws) - 1)
            argument = Argument("draw", number, Spec.of(node.meta["val"]))
            node.replace_all_uses_with(_placeholder(module, arguments, argument, node.meta["val"], f"draw_{number}"))
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    return draws


_MASK: tuple[Role, Role] = ("mask", "coefficients")


def _is_random(node: fx.Node) -> bool:
    """Whether a node draws. Attention is marked as if it did, but its own dropout is never used in a graph of ours."""
    if node.op != "call_function" or torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    return "scaled_dot_product" not in str(node.target)


def _check(node: fx.Node) -> None:
    name = node.target.overloadpacket.__name__
    tensors = list(node.all_input_nodes)
    if tensors and (name not in _ONLY_LIKE or len(tensors) > 1 or node.target is torch.ops.aten.bernoulli.default):
        where = node.meta.get("custom", {}).get("module") or "the model"
        raise CompileError(
            f"{where} draws random numbers by {node.target}, from a distribution that depends on values: draw them"
            " outside, and pass them as an input"
        )


def _placeholder(
    module: fx.GraphModule, arguments: list[Argument], argument: Argument, value: Any, name: str
) -> fx.Node:
    """A new input behind those of `arguments`, before the tangents."""
    nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
    last = nodes[len(arguments) - 1] if arguments else None
    with module.graph.inserting_after(last) if last else module.graph.inserting_before(next(iter(module.graph.nodes))):
        node = module.graph.placeholder(name)
    node.meta["val"] = value
    if isinstance(value, torch.Tensor):
        node.meta["tensor_meta"] = fx.passes.shape_prop._extract_tensor_metadata(value)
    arguments.append(argument)
    return node


def _placed(module: fx.GraphModule, name: str) -> fx.Node:
    return next(node for node in module.graph.nodes if node.op == "placeholder" and node.target == name)
