"""From a module and its optimizers to the program file of its sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bossa.errors import CompileError
from bossa.pef import TRACED_MODULE
from bossa.pef.module import GRAPH, BackwardPlan, ModulePef
from bossa.samba.sections.graph import Graph
from bossa.samba.sections.inductor import Library, Machine, compile_library
from bossa.samba.sections.optimizers import SectionOptimizer
from bossa.samba.sections.partition import Parts, partition
from bossa.samba.sections.structure import describe
from bossa.samba.sections.trace import trace
from bossa.version import __version__

TRAINING = ("fwd", "bckwd", "gradnorm", "opt")


def compile_module(
    model: nn.Module,
    inputs: Sequence[Any] | Mapping[str, Any],
    names: Sequence[str],
    optimizers: Sequence[SectionOptimizer],
    *,
    name: str,
    inference: bool,
) -> ModulePef:
    """Compiles ``model(*inputs)``: the forward pass alone for inference, else all sections that there are.

    Dropouts whose rate is 0 leave no trace in what is compiled, and in inference none does: a session runs their graph
    operator by operator where a program gives them another rate.

    Raises:
        CompileError: the module cannot be traced.
        ToolchainError: there is no C++ compiler, or it failed.
    """

    def wanted(_number: int, rate: float) -> bool:
        return not inference and rate > 0.0

    forward = trace(model, inputs, names, wanted=wanted)
    lines = describe(forward, [line for optimizer in optimizers for line in optimizer.describe()])
    machine = Machine.here()
    parts = None
    if inference or not any(parameter.requires_grad for parameter in model.parameters()):
        libraries = {"fwd": compile_library(forward.module, machine)}
    else:
        joint = trace(model, inputs, names, wanted=wanted, joint=True)
        _check_same(forward, joint)
        parts = partition(joint)
        libraries = {
            "fwd": compile_library(parts.forward, machine),
            "bckwd": compile_library(parts.backward, machine),
        }
    sections = ["fwd"] if parts is None else [*TRAINING] if optimizers else ["fwd", "bckwd"]
    manifest = {
        "kind": TRACED_MODULE,
        "name": name,
        "architecture": type(model).__name__,
        "bossa_version": __version__,
        "torch_version": torch.__version__,
        "target": machine.target,
        "features": machine.features,
        "inference": inference,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sections": sections,
        "dropped": forward.dropped,
        "backward": None if parts is None else _plan(parts, joint).to_json(),
        "causal": None,
    }
    return ModulePef.build(manifest, {GRAPH: "\n".join(lines).encode(), **_members(libraries)})


def _members(libraries: Mapping[str, Library]) -> dict[str, bytes]:
    members = {f"{section}.so": library.code for section, library in libraries.items()}
    calls = {f"{section}.json": library.calls for section, library in libraries.items() if library.calls}
    return members | calls


def _plan(parts: Parts, joint: Graph) -> BackwardPlan:
    operands = ((operand.source, operand.number, operand.stride) for operand in parts.operands)
    return BackwardPlan(tuple(operands), parts.saved, tuple(joint.tangents), tuple(parts.gradients))


def _check_same(forward: Graph, joint: Graph) -> None:
    """Makes sure that what a forward trace alone finds is what the compiled graph takes: a run traces no other.

    Raises:
        CompileError: the module does something else when gradients are wanted.
    """
    same = (
        [argument.spec for argument in forward.arguments] == [argument.spec for argument in joint.arguments]
        and [argument.role for argument in forward.arguments] == [argument.role for argument in joint.arguments]
        and forward.mutated == joint.mutated
        and [(spec.shape, spec.dtype) for spec in forward.outputs] == [(s.shape, s.dtype) for s in joint.outputs]
        and len(forward.draws) == len(joint.draws)
        and len(forward.constants) == len(joint.constants)
        and all(torch.equal(one, other) for one, other in zip(forward.constants, joint.constants, strict=True))
    )
    if not same:
        raise CompileError(
            "the module computes something else when gradients are wanted than when they are not: trace one that does"
            " not ask"
        )
