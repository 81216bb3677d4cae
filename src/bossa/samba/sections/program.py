"""A module that was traced for a run: its program file, its state on the device, and the sections that it can run."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import fx, nn

from bossa.errors import PefError, SambaError
from bossa.pef.module import ModulePef
from bossa.samba.sections import library
from bossa.samba.sections.compiler import TRAINING
from bossa.samba.sections.device import Device
from bossa.samba.sections.executor import Backward, Executor, SectionExecutor
from bossa.samba.sections.inductor import Machine
from bossa.samba.sections.optimizers import SectionOptimizer
from bossa.samba.sections.partition import Operand, Source, partition
from bossa.samba.sections.ranges import Ranges
from bossa.samba.sections.structure import describe, first_difference
from bossa.samba.sections.trace import as_compiled, trace
from bossa.samba.tensor import SambaTensor


class SectionProgram:
    """A compiled module, bound to the weights of one that is the same.

    Attributes:
        graph: the forward graph, for the names, shapes and types of inputs and outputs.
        inputs: what a call takes, in order.
        executors: what can serve the section ``fwd`` alone, the best first.
    """

    def __init__(
        self,
        pef: ModulePef,
        model: nn.Module,
        inputs: Sequence[Any] | Mapping[str, Any],
        names: Sequence[str],
        optimizers: Sequence[SectionOptimizer] | None,
    ) -> None:
        self.where = pef.where
        self.manifest = pef.manifest
        _check_machine(pef)
        self._trace = (weakref.ref(model), inputs, list(names))  # the session forgets programs with their modules
        self.graph = trace(model, inputs, names, wanted=as_compiled(pef.manifest.dropped))
        self._check_graph(pef, optimizers)
        self.optimizers = list(optimizers or [])
        self.device = Device(model, self.optimizers, divides=pef.manifest.inference)
        self._ranges = Ranges(self.graph)
        plan = pef.manifest.backward
        trains = "bckwd" in self.sections
        self._compiled = SectionExecutor(
            self.graph,
            self.device,
            library.load(*pef.section("fwd"), pef.where),
            library.load(*pef.section("bckwd"), pef.where) if trains else None,
            self._plan() if plan and trains else None,
            self._ranges.check,
        )
        self._interpreted: SectionExecutor | None = None
        self._names = [f"output_{number}" for number in range(len(self.graph.outputs))]
        self._results: list[torch.Tensor] | None = None
        self.inputs = self.graph.named("input")
        self._last: SectionExecutor = self._compiled
        self.executors: list[Executor] = [self._compiled]

    @property
    def sections(self) -> list[str]:
        """What `run` can be asked for: without the optimizers that it was compiled with, the forward pass alone."""
        needs = "opt" in self.manifest.sections and not self.optimizers
        return ["fwd"] if needs else list(self.manifest.sections)

    def _check_graph(self, pef: ModulePef, optimizers: Sequence[SectionOptimizer] | None) -> None:
        if optimizers and pef.manifest.inference:
            raise PefError(f"{pef.where}: compiled with --inference, so it trains nothing: trace it without optimizers")
        compiled = pef.graph()
        lines = [line for optimizer in optimizers or () for line in optimizer.describe()]
        if not optimizers:
            compiled = [line for line in compiled if not line.startswith(("optimizer ", "group "))]
        difference = first_difference(compiled, describe(self.graph, lines))
        if difference is None and len(self.graph.sites) != len(pef.manifest.dropped):
            difference = f"dropouts: expected {len(pef.manifest.dropped)}, got {len(self.graph.sites)}"
        if difference:
            raise PefError(f"{pef.where}: the model is not the one that was compiled: {difference}: compile it again")

    def _plan(self) -> Backward:
        plan = self.manifest.backward
        assert plan is not None
        operands = [Operand(cast(Source, source), number, stride) for source, number, stride in plan.operands]
        return Backward(operands, plan.saved, list(plan.gradients), list(plan.tangents))

    def check_sections(self, wanted: Sequence[str]) -> None:
        """Refuses sections that this program does not have.

        Raises:
            SambaError: there is one, with the reason.
        """
        for section in wanted:
            if section not in TRAINING:
                raise SambaError(f"section_types: {section!r} is none: they are {', '.join(TRAINING)}")
            if section in self.sections:
                continue
            if self.manifest.inference:
                raise SambaError(f"{self.where}: compiled with --inference, so it has no section {section}")
            if section in self.manifest.sections:
                raise SambaError(
                    f"{self.where}: section {section} needs the optimizers: give them to trace_graph as optim"
                )
            raise SambaError(
                f"{self.where}: has no section {section}, since it was compiled without optimizers or parameters to"
                " train: give them to session.compile"
            )

    def run_forward(self, inputs: Sequence[torch.Tensor], rate: float | None, *, alone: bool) -> None:
        """The section ``fwd``; `outputs` has its results.

        Args:
            rate: of all dropouts; None for each dropout's own.
            alone: whether what comes after it belongs to a later call.
        """
        self._last.forget()
        keeps = "bckwd" in self.sections
        if not keeps:
            executor = next((executor for executor in self.executors if executor.can_run(rate)), None)
            self._results = (executor or self._by_operators()).run_forward(inputs, rate)
            return
        self._last = self._compiled if self._compiled.can_run(rate) else self._by_operators()
        self._results = self._last.forward(inputs, rate, alone=alone)

    def run_backward(self, starts: dict[int, torch.Tensor]) -> None:
        """The section ``bckwd``.

        Raises:
            SambaError: there was no forward pass that it could follow.
        """
        if not self._last.has_activations:
            raise SambaError("section bckwd follows a run of fwd, once: run fwd before it, or both together")
        self._last.backward(starts)

    def outputs(self, wanted: Sequence[torch.Tensor]) -> list[SambaTensor]:
        """The results of the last forward pass for these traced outputs, or all of them where none is named.

        Raises:
            SambaError: there was no forward pass yet, or one of them is no output of this program.
        """
        if self._results is None:
            raise SambaError("run: the first run of a traced module has to have section fwd")
        numbers = [self.number_of(tensor, place) for place, tensor in enumerate(wanted)] or range(len(self._names))
        return [SambaTensor(self._results[number], self._names[number]) for number in numbers]

    def traced_outputs(self) -> tuple[SambaTensor, ...]:
        """Tensors that stand for the outputs before anything has run: all zeros."""
        traced = []
        for name, spec in zip(self._names, self.graph.outputs, strict=True):
            tensor = SambaTensor(torch.zeros(spec.shape, dtype=spec.dtype), name)
            tensor._section_program = self
            traced.append(tensor)
        return tuple(traced)

    def number_of(self, output: torch.Tensor, place: int) -> int:
        """Which output of the graph a tensor is: by its name, else by its place.

        Raises:
            SambaError: it is none.
        """
        name = getattr(output, "sn_name", None)
        if name in self._names:
            return self._names.index(name)
        if place >= len(self._names):
            raise SambaError(f"output_tensors: the module has {len(self._names)} outputs, and there are more")
        return place

    def ones(self, number: int) -> torch.Tensor:
        """A gradient of ones for an output.

        Raises:
            SambaError: there is no such output, or it does not depend on parameters.
        """
        if not 0 <= number < len(self.graph.outputs):
            raise SambaError(f"loss_indices: there is no output {number}: they go from 0 to {len(self._names) - 1}")
        spec = self.graph.outputs[number]
        return self.start(number, torch.ones(spec.shape, dtype=spec.dtype))

    def start(self, number: int, gradient: torch.Tensor) -> torch.Tensor:
        """A program's own gradient of an output, as the section takes it.

        Raises:
            SambaError: it has another shape, or the output does not depend on parameters.
        """
        spec, name = self.graph.outputs[number], self._names[number]
        if self.manifest.backward is not None and number not in self.manifest.backward.tangents:
            raise SambaError(f"{name} does not depend on a parameter that is trained: no gradient can start there")
        if tuple(gradient.shape) != spec.shape:
            raise SambaError(
                f"sn_grad of {name}: expected shape {list(spec.shape)}, as the output has, got {list(gradient.shape)}"
            )
        return gradient.to(spec.dtype)

    def _by_operators(self) -> SectionExecutor:
        """The graph with all its dropouts, one operator of torch after the other: no compiled section has them."""
        if self._interpreted is None:
            model, inputs, names = self._trace
            traced = model()
            if traced is None:
                raise SambaError("run: the traced module is gone, and dropout at this rate needs it: keep the module")
            joint = "bckwd" in self.sections
            graph = trace(traced, inputs, names, joint=joint)
            if joint:
                parts = partition(graph)
                plan = Backward(parts.operands, parts.saved, parts.gradients, graph.tangents)
                calls = _call(parts.forward), _call(parts.backward)
                self._interpreted = SectionExecutor(graph, self.device, *calls, plan, self._ranges.check)
            else:
                self._interpreted = SectionExecutor(graph, self.device, _call(graph.module), check=self._ranges.check)
        return self._interpreted


def _check_machine(pef: ModulePef) -> None:
    """Refuses compiled code that this machine, or this torch, cannot run.

    Raises:
        PefError: it was compiled for another.
    """
    manifest = pef.manifest
    if manifest.torch_version != torch.__version__:
        raise PefError(
            f"{pef.where}: compiled by torch {manifest.torch_version}, and this is {torch.__version__}: compile again"
        )
    if not Machine(manifest.target, manifest.features).runs_here():
        wanted = " ".join([manifest.target, *manifest.features])
        raise PefError(f"{pef.where}: compiled for a CPU with {wanted}, which this is not: compile it here")


def _call(module: fx.GraphModule) -> Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]:
    return lambda tensors: module(*tensors)
