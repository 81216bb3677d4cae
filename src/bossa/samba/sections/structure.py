"""A graph as text: what two traces of one module agree on, whatever its weights and dropout rates are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import fx

from bossa.samba.sections.graph import Graph, Spec, dtype_name

_NODE = re.compile(r"(?P<module>\S*): %\d+ = (?P<call>.*)\Z", re.DOTALL)


def describe(graph: Graph, optimizers: Sequence[str] = ()) -> list[str]:
    """A line for each input, output, optimizer and operator of a forward graph, in order.

    A line of an operator is ``module: %7 = aten.addmm(%1, %5, %6) -> float32[4,8]``.
    """
    lines = [
        f"{argument.role} {argument.name} {argument.spec}"
        for argument in graph.arguments
        if argument.role in ("input", "parameter", "buffer", "constant")
    ]
    lines += [f"output {number} {spec}" for number, spec in enumerate(graph.outputs)]
    lines += [f"changed {name}" for name in graph.mutated]
    lines += [f"dropout {number} {site.kind}" for number, site in enumerate(graph.sites)]
    lines += optimizers
    numbers: dict[fx.Node, str] = {}
    for node in graph.module.graph.nodes:
        numbers[node] = f"%{len(numbers)}"
        if node.op == "placeholder":
            continue
        values = [_text(value, numbers) for value in node.args]
        values += [f"{key}={_text(value, numbers)}" for key, value in node.kwargs.items()]
        target = node.target if isinstance(node.target, str) else _target(node.target)
        module = node.meta.get("custom", {}).get("module", "")
        lines.append(f"{module}: {numbers[node]} = {target}({', '.join(values)}) -> {_result(node.meta.get('val'))}")
    return lines


def _target(target: Any) -> str:
    return str(target) if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))


def _text(value: Any, numbers: dict[fx.Node, str]) -> str:
    if isinstance(value, fx.Node):
        return numbers[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(_text(item, numbers) for item in value)}]"
    return str(value)


def _result(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return str(Spec.of(value))
    if isinstance(value, list | tuple):
        return f"({', '.join(_result(item) for item in value)})"
    return dtype_name(value) if isinstance(value, torch.dtype) else type(value).__name__


def first_difference(compiled: Sequence[str], found: Sequence[str]) -> str | None:
    """Where two descriptions part, and what each says there; None where they agree."""
    for expected, got in zip_longest(compiled, found):
        if expected != got:
            where, expected, got = _apart(expected, got)
            return f"{where}: expected {expected}, got {got}"
    return None


def _apart(expected: str | None, got: str | None) -> tuple[str, str, str]:
    either = _NODE.match(got or "") or _NODE.match(expected or "")
    if either is not None:
        name = either["module"]
        return f"in {name}" if name else "in the model itself", _call(expected), _call(got)
    words, others = (expected or "").split(), (got or "").split()
    if len(words) > 2 and words[:2] == others[:2]:
        return " ".join(words[:2]), " ".join(words[2:]), " ".join(others[2:])
    return "among its inputs, weights and outputs", expected or "nothing more", got or "nothing more"


def _call(line: str | None) -> str:
    match = _NODE.match(line or "")
    return match["call"] if match else line or "nothing more"
