"""A traced graph, node by node, into a row program: each op is shown to be local to its row, or refused by name."""

from __future__ import annotations

import operator

import torch

from bossa.errors import CompileError
from bossa.frontend.geometry import Geometry
from bossa.frontend.lowering import Lowering, Parameters
from bossa.frontend.operand import Operand, Tokens
from bossa.frontend.rules import lower_node
from bossa.frontend.trace import Trace
from bossa.ir.program import Program


def lower(trace: Trace, *, name: str, max_seq_length: int) -> Program:
    """The row program of a trace.

    Raises:
        CompileError: naming the operator and the module it came from.
    """
    parameters, constants = _inputs(trace)
    logits = next(node for node in trace.exported.graph.nodes if node.op == "output").args[0][-1]
    vocab_size = int(logits.meta["val"].shape[-1])
    low = Lowering(trace, max_seq_length, parameters, Geometry(constants))
    output = _lower_nodes(low)
    if output.row_shape[-1] != vocab_size or len(output.row_shape) > 2:
        raise CompileError(f"the model's logits have shape {output.row_shape}, its vocabulary {vocab_size}")
    if output.space != "value" or not output.view().identity_of(vocab_size):
        output = low.copy(output)
    return Program(name, vocab_size, max_seq_length, tuple(low.ops), output.name, low.slots, low.tables)


def _inputs(trace: Trace) -> tuple[Parameters, dict[str, torch.Tensor]]:
    """What the graph's placeholders are: parameters by checkpoint name, and computed buffers by value."""
    signature = trace.exported.graph_signature
    own = dict(trace.model.named_parameters(remove_duplicate=False))
    buffers = dict(trace.model.named_buffers(remove_duplicate=False))
    aliases: dict[int, list[str]] = {}
    for path, parameter in own.items():
        aliases.setdefault(id(parameter), []).append(path)
    parameters: Parameters = {}
    constants: dict[str, torch.Tensor] = {}
    for placeholder, target in signature.inputs_to_parameters.items():
        path = target.removeprefix("model.")
        others = (other for other in aliases[id(own[path])] if other != path)
        parameters[placeholder] = ((path, *others), tuple(own[path].shape))
    for placeholder, target in signature.inputs_to_buffers.items():
        path = target.removeprefix("model.")
        if path in trace.buffers:
            constants[placeholder] = trace.buffers[path]
        else:
            parameters[placeholder] = ((path,), tuple(buffers[path].shape))
    for placeholder, target in signature.inputs_to_lifted_tensor_constants.items():
        constants[placeholder] = trace.exported.constants[target]
    return parameters, constants


def _lower_nodes(low: Lowering) -> Operand:
    """Lower every node; the logits."""
    for node in low.trace.exported.graph.nodes:
        if node.op == "output":
            return low.operand(node, node.args[0][-1])  # after any changed buffers
        if node.op == "placeholder":
            if node.name == "input_ids":
                low.values[node] = Tokens()
            elif node.name in low.parameters:
                low.values[node] = low.parameter(node)
            elif not low.geometry.admit(node):
                raise CompileError(f"{node.name}: an input or a buffer whose value is not known")
        elif node.op == "call_function":
            if node.target is operator.getitem and node.args[0] in low.values:
                low.values[node] = low.values[node.args[0]][node.args[1]]
            elif not low.geometry.admit(node):
                lower_node(low, node)
        else:
            raise CompileError(f"{node.op} {node.target} cannot be compiled")
    raise CompileError("the traced model has no output")
