"""The state of one lowering: what each node of a traced graph has become, and the ops, slots and tables made so far."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from bossa.errors import CompileError
from bossa.frontend import pointwise
from bossa.frontend.geometry import Geometry
from bossa.frontend.operand import Dims, Operand, Tokens, broadcast, fresh
from bossa.frontend.scores import Score
from bossa.frontend.trace import Trace
from bossa.ir.program import Op
from bossa.ir.slot import Slot, Source
from bossa.ir.values import Apply, Cat, Const, Expr, Value, View
from bossa.ops import Map, Reduce

Parameters = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
"""Of each placeholder: the names it may have in a checkpoint, and its shape."""


@dataclass
class Lowering:
    """What is known so far. `values` holds an `Operand`, `Tokens`, `Score`, or a list of them for each node."""

    trace: Trace
    max_seq_length: int
    parameters: Parameters
    geometry: Geometry
    ops: list[Op] = field(default_factory=list)
    slots: dict[str, Slot] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    values: dict[Node, Any] = field(default_factory=dict)
    layers: int = 0
    count: int = 0

    # -- naming and reporting ------------------------------------------------------------------------------------

    def where(self, node: Node) -> str:
        """The operator and the module it came from, for messages."""
        stack = node.meta.get("nn_module_stack") or {}
        path, kind = "", ""
        for entry_path, entry_kind in stack.values():
            path, kind = str(entry_path), str(entry_kind).rsplit(".", 1)[-1]
        path = path.removeprefix("model.")
        target = str(node.target).replace("torch._ops.", "")
        return f"{target} in {path or 'the model'}" + (f" ({kind.rstrip(chr(39) + '>')})" if kind else "")

    def refuse(self, node: Node, why: str) -> CompileError:
        return CompileError(f"{self.where(node)}: {why}")

    def value(self, shape: Dims) -> Value:
        self.count += 1
        return Value(f"v{self.count}", tuple(extent for extent in shape if extent is not None))

    def shape(self, node: Node) -> Dims:
        """The traced shape, T as None."""
        return self.extents(node, node.meta["val"].shape)

    def extents(self, node: Node, shape: Any) -> Dims:
        dims: list[int | None] = []
        for extent in shape:
            if isinstance(extent, torch.SymInt):
                expression = extent.node.expr
                if not expression.is_Symbol:
                    raise self.refuse(node, f"an axis of {expression} elements mixes rows with features")
                dims.append(None)
            else:
                dims.append(int(extent))
        return tuple(dims)

    # -- operands ------------------------------------------------------------------------------------------------

    def operand(self, node: Node, argument: Any) -> Operand:
        """A node's value as a row operand; positions become tables."""
        value = self.values.get(argument) if isinstance(argument, Node) else None
        if isinstance(value, Operand):
            return value
        if isinstance(argument, Node) and argument in self.geometry.nodes:
            return self.table(node, argument)
        if isinstance(value, Score):
            raise self.refuse(node, "attention scores are used in an unknown way")
        if isinstance(value, Tokens):
            raise self.refuse(node, "token ids are used for something other than an embedding")
        raise self.refuse(node, f"cannot use {argument}")

    def evaluate(self, node: Node, source: Node) -> Any:
        """What depends on positions alone, for a sequence of the full length.

        A shorter sequence must see the same at its positions: only then is it a value of the position.
        """
        length, shorter = self.max_seq_length, max(self.max_seq_length // 2, 1)
        value, other = self.geometry.value(source, length), self.geometry.value(source, shorter)
        first, second = torch.as_tensor(value).double(), torch.as_tensor(other).double()
        if isinstance(value, torch.Tensor) and None in (shape := self.shape(source)):
            first = first.narrow(shape.index(None), 0, shorter)
        if first.shape != second.shape or not torch.allclose(first, second, rtol=1e-5, atol=1e-6, equal_nan=True):
            raise self.refuse(node, "a value that depends on the length of the whole sequence")
        return value

    def constant(self, node: Node, source: Node) -> float | None:
        """The number that `source` is, where it depends on nothing and has one element."""
        if source not in self.geometry.nodes:
            return None
        traced = source.meta.get("val")
        if isinstance(traced, torch.Tensor) and (traced.numel() != 1 or None in self.shape(source)):
            return None
        return float(self.evaluate(node, source))

    def table(self, node: Node, source: Node) -> Operand:
        """What depends on positions alone as a table ``[max_seq_length, D...]``; a constant has one row."""
        dims = self.shape(source) if isinstance(source.meta["val"], torch.Tensor) else ()
        if dims.count(None) > 1:
            raise self.refuse(node, "a value of every pair of positions is used outside attention")
        value = torch.as_tensor(self.evaluate(node, source))
        array = value.detach().to(torch.float32)
        if bool(array.isnan().any()):
            raise self.refuse(node, "some of its values are not numbers: correct the config that they come from")
        if None in dims:
            array = array.movedim(dims.index(None), 0)
        else:
            array = array[None]
        return fresh("table", self.keep(array.contiguous().numpy()), dims)

    def keep(self, array: np.ndarray) -> str:
        """The name of a table with this content, the same one each time."""
        for name, table in self.tables.items():
            if table.dtype == array.dtype and table.shape == array.shape and np.array_equal(table, array):
                return name
        name = f"t{len(self.tables)}"
        self.tables[name] = array
        return name

    def parameter(self, node: Node) -> Operand:
        """A parameter as a flat weight; a linear or an embedding that uses it makes another slot of it."""
        _, shape = self.parameters[node.name]
        return fresh("weight", node.name, shape)

    def use_flat(self, expr: Expr) -> Expr:
        """Make slots for the flat weights that an expression reads."""
        if isinstance(expr, View) and expr.space == "weight":
            return replace(expr, name=self.slot(expr.name, "flat"))
        if isinstance(expr, Apply):
            return Apply(expr.function, tuple(self.use_flat(arg) for arg in expr.args))
        if isinstance(expr, Cat):
            return replace(expr, parts=tuple(self.use_flat(part) for part in expr.parts))
        return expr

    def slot(self, placeholder: str, layout: str, *, transpose: bool = False) -> str:
        """The name of the slot for a whole parameter in the given layout."""
        names, shape = self.parameters[placeholder]
        logical = tuple(reversed(shape)) if transpose else shape
        for known in self.slots.values():
            same = known.sources[0].names == names and known.shape == logical
            if same and {known.layout, layout} == {"rows", "panels"}:  # a tied embedding is read from the packed head
                if known.layout == "rows":
                    self.slots[known.name] = replace(known, layout="panels")
                return known.name
            if same and known.layout == layout and known.sources[0].transpose == transpose:
                return known.name
        name = names[0] if layout != "flat" or names[0] not in self.slots else f"{names[0]}:flat"
        if name in self.slots:
            name = f"{names[0]}:{layout}"
        self.slots[name] = Slot(name, layout, logical, "fp32", (Source(names, shape, transpose),))  # type: ignore[arg-type]
        return name

    # -- making ops ----------------------------------------------------------------------------------------------

    def map(self, shape: Dims, expr: Expr) -> Operand:
        """A new value of pointwise `expr`; its views already have the domain's shape."""
        value = self.value(shape)
        self.ops.append(Map(value, self.use_flat(expr)))
        return fresh("value", value.name, shape)

    def copy(self, x: Operand) -> Operand:
        """`x`, contiguous."""
        return self.map(x.shape, x.view())

    def pointwise(self, node: Node, name: str) -> Operand:
        """The value of an operator that works element by element."""
        shape = self.shape(node)
        built: list[Any] = []
        for argument in node.args:
            if isinstance(argument, Node) and (constant := self.constant(node, argument)) is not None:
                built.append(Const(constant))
            elif isinstance(argument, Node):
                x = self.operand(node, argument)
                wide = broadcast(x, shape)
                if wide is None:
                    raise self.refuse(node, "operands whose rows do not line up: it reads along the sequence")
                built.append(wide.view())
            elif isinstance(argument, (int, float, bool)):
                built.append(Const(float(argument)))
            else:
                built.append(argument)
        given = {k: v for k, v in node.kwargs.items() if k in pointwise.NAMED}
        named = {k: Const(float(v)) if isinstance(v, (int, float)) else v for k, v in given.items()}
        return self.map(shape, pointwise.POINTWISE[name](*built, **named))

    def reduce(self, x: Operand, kind: Any, axes: int, expr: Expr | None = None) -> Value:
        """Reduce the last `axes` axes of `x` (or of an expression over its shape)."""
        domain = x.row_shape
        out = self.value(domain[: len(domain) - axes])
        self.ops.append(Reduce(out, kind, domain, axes, self.use_flat(x.view() if expr is None else expr)))
        return out

    def spread(self, value: Value, x: Operand, axes: int) -> View:
        """A reduced value over the domain it came from."""
        kept = fresh("value", value.name, value.shape).view()
        return View("value", value.name, x.row_shape, (*kept.strides, *(0,) * axes))
