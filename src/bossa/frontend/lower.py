"""A traced graph, node by node, into a row program: each op is shown to be local to its row, or refused by name."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from bossa.errors import CompileError
from bossa.frontend.geometry import Geometry
from bossa.frontend.operand import (
    Dims,
    Operand,
    Tokens,
    broadcast,
    broadcast_shapes,
    drop,
    fresh,
    insert,
    narrow,
    permute,
    reshape,
)
from bossa.frontend import pointwise
from bossa.frontend.scores import Score, Visibility, classify, window_of
from bossa.frontend.trace import Trace
from bossa.program.ir import (
    Apply,
    Attention,
    Cat,
    Const,
    Embed,
    Expr,
    Linear,
    Map,
    Op,
    Program,
    Reduce,
    Value,
    View,
)
from bossa.weights.slot import DType, Slot, Source

LARGEST_MASK = 8192
"""Masks are checked position by position up to this length."""

_SAME = {"alias", "clone", "contiguous", "detach", "_to_copy", "to", "lift_fresh_copy", "dropout", "lift", "type_as"}
_RESHAPES = {"view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "flatten", "unflatten"}
_REDUCTIONS = {"mean": "mean", "sum": "sum", "amax": "max", "amin": "min"}


@dataclass
class Lowering:
    """The state of one lowering: ops so far, slots and tables made, and what each node has become."""

    trace: Trace
    name: str
    vocab_size: int
    max_seq_length: int
    precision: DType
    parameters: dict[str, tuple[tuple[str, ...], tuple[int, ...]]]  # placeholder -> checkpoint names, shape
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
            raise self.refuse(node, "attention scores are used in a way that is not known")
        if isinstance(value, Tokens):
            raise self.refuse(node, "token ids are used for something else than an embedding")
        raise self.refuse(node, f"cannot use {argument}")

    def constant(self, source: Node) -> float | None:
        """The number that a node is, where it depends on nothing and has one element."""
        if source not in self.geometry.nodes:
            return None
        traced = source.meta.get("val")
        if isinstance(traced, torch.Tensor) and (traced.numel() != 1 or None in self.shape(source)):
            return None
        return float(self.geometry.value(source, self.max_seq_length))

    def table(self, node: Node, source: Node) -> Operand:
        """What depends on positions alone, evaluated into a table ``[max_seq_length, D...]``; a constant has one row."""
        value = self.geometry.value(source, self.max_seq_length)
        if not isinstance(value, torch.Tensor):
            value = torch.tensor(float(value))
        dims = self.shape(source)
        if dims.count(None) > 1:
            raise self.refuse(node, "a value of every pair of positions is used outside attention")
        array = value.detach().to(torch.float32)
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
        dtype: DType = "fp32" if layout == "flat" else self.precision
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
        self.slots[name] = Slot(name, layout, logical, dtype, (Source(names, shape, transpose),))  # type: ignore[arg-type]
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

    def needs_rows(self, x: Operand) -> bool:
        return x.space == "value"

    def pointwise(self, node: Node, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operand:
        shape = self.shape(node)
        built: list[Any] = []
        for argument in args:
            if isinstance(argument, Node) and (constant := self.constant(argument)) is not None:
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
        named = {k: v for k, v in kwargs.items() if k in ("alpha", "approximate", "beta", "threshold", "min", "max")}
        if "min" in named or "max" in named:
            low, high = named.get("min"), named.get("max")
            built += [None if low is None else Const(float(low)), None if high is None else Const(float(high))]
            named = {}
        named = {k: Const(float(v)) if isinstance(v, (int, float)) else v for k, v in named.items()}
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

    def linear(self, node: Node, x: Operand, weight: Operand, bias: Any, shape: Dims) -> Operand:
        """``x [..., K]`` times a whole weight, given as ``[N, K]`` under its strides."""
        if x.row_axis is None or x.row_axis == len(x.shape) - 1:
            raise self.refuse(node, "a product that reads along the sequence")
        whole, stored = weight, self.parameters.get(weight.name)
        if stored is None or weight.space != "weight" or len(stored[1]) != 2 or len(whole.shape) != 2 or whole.offset:
            raise self.refuse(node, "a product with something else than a whole weight matrix")
        n, k = whole.shape
        if whole.shape == stored[1] and whole.strides == (stored[1][1], 1):
            transpose = False
        elif whole.shape == stored[1][::-1] and whole.strides == (1, stored[1][1]):
            transpose = True
        else:
            raise self.refuse(node, "a product with a part of a weight matrix")
        if not x.view().contiguous:
            x = self.copy(x)
        slot = self.slot(weight.name, "panels", transpose=transpose)
        out = self.value(shape)
        bias_slot = None
        if bias is not None:
            b = self.operand(node, bias)
            stored_bias = self.parameters.get(b.name)
            if b.space == "weight" and stored_bias is not None and b.view().identity_of(int(n or 0)):
                bias_slot = self.slot(b.name, "flat")
        self.ops.append(Linear(out, x.view(), slot, bias_slot))
        result = fresh("value", out.name, shape)
        if bias is not None and bias_slot is None:
            wide = broadcast(self.operand(node, bias), shape)
            if wide is None:
                raise self.refuse(node, "a bias whose shape does not fit")
            result = self.map(shape, pointwise.call("add", result.view(), wide.view()))
        return result

    # -- attention -----------------------------------------------------------------------------------------------

    def heads(self, node: Node, x: Operand) -> View:
        """``[..., H, T, D]`` as a view ``[H, D]`` whose features are side by side."""
        if x.row_axis != len(x.shape) - 2 or any(extent != 1 for extent in x.shape[:-3]):
            raise self.refuse(node, "attention over a shape that is not [batch, heads, rows, features]")
        if len(x.shape) == 2:
            x = insert(x, 0)
        while len(x.shape) > 3:
            x = drop(x, 0)
        if x.space != "value" or (x.strides[-1] != 1 and x.shape[-1] != 1):
            x = self.copy(x)
        return x.view()

    def attend(
        self,
        node: Node,
        q: Operand,
        k: Operand,
        v: Operand,
        scale: float,
        seen: Visibility,
        softcap: float = 0.0,
        sinks: Operand | None = None,
    ) -> Operand:
        """An attention op; its result is ``[H, T, E]`` laid out as a row ``[H, E]``."""
        query, key, values = self.heads(node, q), self.heads(node, k), self.heads(node, v)
        heads, groups = query.shape[0], key.shape[0]
        if heads % groups or values.shape[0] != groups:
            raise self.refuse(node, f"{heads} query heads over {groups} key and {values.shape[0]} value heads")
        out = self.value((heads, values.shape[1]))
        bias = None
        if seen.bias is not None:
            bias = self.keep(np.ascontiguousarray(seen.bias))
        sink_slot = None
        if sinks is not None:
            if sinks.space != "weight" or not sinks.view().identity_of(heads):
                raise self.refuse(node, "attention sinks that are not a weight, one a head")
            sink_slot = self.slot(sinks.name, "flat")
        window = seen.window if seen.window < self.max_seq_length else 0
        self.ops.append(
            Attention(out, query, key, values, self.layers, scale, window, softcap, bias, sink_slot)
        )
        self.layers += 1
        return fresh("value", out.name, (heads, None, values.shape[1]))  # a row is [H, E] whatever T's place

    def visibility(self, node: Node, mask: Any, declared: int) -> Visibility:
        """The mask that reached the attention interface, by what its function says."""
        source = mask
        while isinstance(source, Node) and "bossa.mask" not in str(source.target):
            if not source.all_input_nodes:
                raise self.refuse(node, "an attention mask that was not made by transformers' mask functions")
            source = source.all_input_nodes[0]
        if source is None:
            return Visibility(declared, None)
        function = self.trace.masks.functions[source.args[2]]
        length = min(self.max_seq_length, LARGEST_MASK)
        i, j = torch.arange(length)[:, None], torch.arange(length)[None, :]
        zero = torch.zeros((), dtype=torch.long)
        try:
            allowed = torch.as_tensor(function(zero, zero, i, j)).expand(length, length)
        except Exception as error:
            raise self.refuse(node, f"an attention mask that cannot be evaluated ({str(error).splitlines()[0]})") from error
        window = window_of(allowed, self.where(node))
        if not window and declared and declared < length:
            raise self.refuse(node, f"a sliding window of {declared} that its mask does not have")
        return Visibility(window or (declared if self.max_seq_length > length else 0), None)

    def closed(self, node: Node, score: Score, v: Operand) -> Operand:
        """softmax(scores) v: the end of attention that was written out."""
        if not score.normalised:
            raise self.refuse(node, "a product of rows with rows that is not softmax attention")
        heads = 1
        for extent in score.q.shape[:-2]:
            heads *= int(extent or 1)
        if self.max_seq_length > LARGEST_MASK:
            raise self.refuse(
                node, f"attention written out can be checked to {LARGEST_MASK} positions: compile with a shorter"
                " max_seq_length",
            )  # fmt: skip
        seen = classify(score.terms, heads, self.max_seq_length, self.where(node))
        self.geometry.forget()
        result = self.attend(node, score.q, score.k, v, score.scale, seen, score.softcap)
        while len(result.shape) < len(v.shape):
            result = insert(result, 0)
        return result

    # -- the walk ------------------------------------------------------------------------------------------------

    def run(self) -> Program:
        from bossa.frontend.rules import lower_node  # rules use this class

        output: Operand | None = None
        for node in self.trace.exported.graph.nodes:
            if node.op == "output":
                output = self.operand(node, node.args[0][-1])  # after any changed buffers
            elif node.op == "placeholder":
                if node.name == "input_ids":
                    self.values[node] = Tokens()
                elif node.name in self.parameters:
                    self.values[node] = self.parameter(node)
                elif not self.geometry.admit(node):
                    raise CompileError(f"{node.name}: an input or a buffer whose value is not known")
            elif node.op == "call_function":
                if node.target is operator.getitem:
                    source = self.values.get(node.args[0])
                    if source is not None:
                        self.values[node] = source[node.args[1]]
                        continue
                if not self.geometry.admit(node):
                    lower_node(self, node)
            else:
                raise CompileError(f"{node.op} {node.target} cannot be compiled")
        assert output is not None
        if output.row_shape[-1] != self.vocab_size or len(output.row_shape) > 2:
            raise CompileError(f"the model's logits have shape {output.row_shape}, its vocabulary {self.vocab_size}")
        if not output.view().identity_of(self.vocab_size) or not output.space == "value":
            output = self.copy(output)
        return Program(
            self.name, self.vocab_size, self.max_seq_length, tuple(self.ops), output.name, self.slots, self.tables
        )


def lower(
    trace: Trace,
    *,
    name: str,
    max_seq_length: int,
    precision: DType = "fp32",
) -> Program:
    """The row program of a trace.

    Raises:
        CompileError: naming the operator and the module it came from.
    """
    exported = trace.exported
    signature = exported.graph_signature
    aliases: dict[int, list[str]] = {}
    for parameter_name, parameter in trace.model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(parameter_name)
    own = dict(trace.model.named_parameters(remove_duplicate=False))
    own_buffers = dict(trace.model.named_buffers(remove_duplicate=False))
    parameters: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {}
    constants: dict[str, torch.Tensor] = {}
    for placeholder, target in signature.inputs_to_parameters.items():
        path = target.removeprefix("model.")
        names = aliases[id(own[path])]
        ordered = (path, *(other for other in names if other != path))
        parameters[placeholder] = (ordered, tuple(own[path].shape))
    for placeholder, target in signature.inputs_to_buffers.items():
        path = target.removeprefix("model.")
        if path in trace.buffers:
            constants[placeholder] = trace.buffers[path]
        else:
            parameters[placeholder] = ((path,), tuple(own_buffers[path].shape))
    for placeholder, target in signature.inputs_to_lifted_tensor_constants.items():
        constants[placeholder] = exported.constants[target]
    logits = next(node for node in exported.graph.nodes if node.op == "output").args[0][-1].meta["val"]
    vocab_size = int(logits.shape[-1])
    return Lowering(
        trace, name, vocab_size, max_seq_length, precision, parameters, Geometry(constants)
    ).run()
