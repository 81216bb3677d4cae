"""Values that depend on positions alone, evaluated: position tables, masks and constants of a traced graph."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from bossa.frontend.reasons import TooLong, one_line


class Geometry:
    """Evaluates the nodes of a graph that depend on neither token ids nor weights, for sequences of a given length.

    In such a graph an arange or a cumsum of ones along T stands for the position, so with one sequence of the full
    length, row i of the result is the value at position i.
    """

    def __init__(self, constants: dict[str, torch.Tensor]) -> None:
        self.constants = constants  # placeholder name -> real tensor
        self.nodes: set[Node] = set()
        self.memo: dict[tuple[Node, int], Any] = {}

    def admit(self, node: Node) -> bool:
        """Whether `node` depends on positions alone; remembers it if so."""
        if node.op == "placeholder":
            known = node.name in self.constants
        elif node.op == "call_function":
            name = getattr(node.target, "__name__", "")
            known = "bossa" not in str(node.target) and (
                "sym_size" in name or all(source in self.nodes for source in node.all_input_nodes)
            )
        else:
            known = False
        if known:
            self.nodes.add(node)
        return known

    def value(self, node: Node, length: int) -> Any:
        """The node's value for a sequence of `length` rows.

        Raises:
            TooLong: it cannot be computed for that many.
        """
        key = (node, length)
        if key not in self.memo:
            try:
                self.memo[key] = self._compute(node, length)
            except (RuntimeError, IndexError) as error:
                raise TooLong(
                    f"{node.target}: the model has no value for each of {length:,} positions ({one_line(error, 120)}):"
                    " compile with a shorter max_seq_length",
                    length // 2,
                ) from error
        return self.memo[key]

    def forget(self) -> None:
        """Drop all values kept."""
        self.memo.clear()

    def _compute(self, node: Node, length: int) -> Any:
        if node.op == "placeholder":
            return self.constants[node.name]
        if "sym_size" in getattr(node.target, "__name__", ""):
            extent = node.meta["val"]
            return length if isinstance(extent, torch.SymInt) else int(extent)

        def load(argument: Node) -> Any:
            return self.value(argument, length)

        args = torch.fx.map_arg(node.args, load)
        kwargs = dict(torch.fx.map_arg(node.kwargs, load))
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        return node.target(*args, **kwargs)
