"""The session: it compiles a module, traces it for a run, and runs sections of it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bossa.errors import SambaError, kind_of
from bossa.pef.module import ModulePef
from bossa.samba import arguments, causal
from bossa.samba.sections.binding import bind, names_of
from bossa.samba.sections.compiler import compile_module
from bossa.samba.sections.optimizers import OVERRIDES, SectionOptimizer, listed
from bossa.samba.sections.program import SectionProgram
from bossa.samba.sections.trace import plain
from bossa.samba.tensor import SambaTensor


class SambaSession:
    """Compiles modules, and runs those that were traced against a program file.

    Several traced modules may be in use at once: `run` knows by its output tensors which is meant.
    """

    def __init__(self) -> None:
        self._programs: weakref.WeakKeyDictionary[nn.Module, SectionProgram] = weakref.WeakKeyDictionary()
        self._current: SectionProgram | None = None

    def compile(
        self,
        model: nn.Module,
        inputs: Sequence[Any] | Mapping[str, Any],
        optimizers: Any = None,
        name: str | None = None,
        app_dir: str | None = None,
        inference: bool | None = None,
        init_output_grads: bool = False,
        config_dict: Mapping[str, Any] | None = None,
        pef_metadata: Any = None,
        squeeze_bs_dim: bool = False,
        **options: Any,
    ) -> str:
        """Compiles ``model(*inputs)`` into sections, and writes the program file.

        Args:
            model: any module; its mode, its parameters that need gradients and its dropouts are as they are now.
            inputs: the arguments of a call, or a mapping of keyword arguments; None and values among them are kept.
            optimizers: one, a list, or None: without, there are no sections gradnorm and opt.
            name: of the model, as `bossa inspect` shows it; the file is named by ``--pef-name`` or by time and process.
            inference: only the forward pass; also where the program was started with ``--inference``. That of a causal
                language model of transformers is then compiled natively too.
            config_dict: ``precision`` of such a model's native program, ``fp32`` by default.

        Other arguments tune other hardware and mean nothing here.

        Returns:
            The file's path, which is also printed.

        Raises:
            CompileError: the module cannot be traced.
            SambaError: an optimizer is of a kind that a session does not have, or the name given is no file name.
        """
        _check_module(model, "compile")
        only = arguments.is_inference() or bool(inference)
        given = [] if only else [SectionOptimizer(optimizer, model) for optimizer in listed(optimizers)]
        path = arguments.compile_path()
        pef = compile_module(model, inputs, names_of(inputs), given, name=str(name or path.stem), inference=only)
        if only:
            precision = str((config_dict or {}).get("precision", "fp32"))
            pef = causal.with_native(pef, model, inputs, names_of(inputs), precision)
        pef.save(path)
        print(path)
        return str(path)

    def trace_graph(
        self,
        model: nn.Module,
        inputs: Sequence[Any] | Mapping[str, Any],
        optim: Any = None,
        pef: str | os.PathLike[str] | None = None,
        init_output_grads: bool = False,
        mapping: Any = None,
        **options: Any,
    ) -> tuple[SambaTensor, ...]:
        """Reads a program file, checks that the module is the compiled one, and sends its weights to the session.

        Args:
            model, inputs: as for `compile`; weights and rates of dropouts may be others.
            optim: the optimizers that it was compiled with; without, only the section fwd can be run.
            pef: the file; where it is left out, the one that the program was started with.

        Returns:
            The outputs, their values not computed yet; also at ``model.output_tensors``.

        Raises:
            PefError: the file is missing, damaged, of another machine, or of another module.
            SambaError: no file was named.
        """
        _check_module(model, "trace_graph")
        path = pef or arguments.pef_path()
        if path is None:
            raise SambaError("trace_graph needs a program file: give it pef=, or start the program with run --pef FILE")
        optimizers = [SectionOptimizer(optimizer, model) for optimizer in listed(optim)]
        with ModulePef.open(Path(path)) as opened:
            program = SectionProgram(opened, model, inputs, names_of(inputs), optimizers)
            if opened.manifest.causal is not None:
                native = causal.NativeExecutor.of(opened, opened.manifest.causal, program)
                program.executors.insert(0, native)
        outputs = program.traced_outputs()
        self._programs[model] = self._current = program
        object.__setattr__(model, "output_tensors", outputs)
        return outputs

    def run(
        self,
        input_tensors: Any = (),
        output_tensors: Sequence[torch.Tensor] | torch.Tensor | None = None,
        hyperparam_dict: Mapping[str, Any] | None = None,
        section_types: Sequence[str] | str | None = None,
        data_parallel: bool = False,
        reduce_on_rdu: bool = False,
        loss_indices: Sequence[int] | int | None = None,
        **options: Any,
    ) -> list[SambaTensor]:
        """Runs sections in the order fwd, bckwd, gradnorm, opt.

        Args:
            input_tensors: what the module takes: by name where tensors have one, else by place; Nones may be left out.
            output_tensors: the traced outputs; a gradient starts at those with ``sn_grad``.
            hyperparam_dict: ``lr``, ``momentum`` and ``weight_decay`` of all optimizers, ``p`` of all dropouts.
            section_types: those to run; all that the program has where it is left out.
            data_parallel, reduce_on_rdu: average the gradients over the replicas before gradnorm or opt.
            loss_indices: outputs whose gradient starts with ones where none has ``sn_grad``; output 0 without it.

        Returns:
            The outputs of the last forward pass, as many and in the order of `output_tensors`; later runs leave them.

        Raises:
            SambaError: nothing was traced, an input is wrong, or a section is not in the program.
        """
        program = self._program(output_tensors)
        wanted = _sections(section_types, program)
        values = _numbers(hyperparam_dict)
        if "fwd" in wanted:
            inputs = bind(input_tensors, program.inputs)
            program.run_forward(inputs, _rate(values), alone="bckwd" not in wanted)
        outputs = _listed(output_tensors)
        if "bckwd" in wanted:
            program.run_backward(_starts(outputs, program, loss_indices))
        if wanted & {"gradnorm", "opt"} and (data_parallel or reduce_on_rdu or _is_data_parallel()):
            program.device.average()
        if "gradnorm" in wanted:
            program.device.clip()
        if "opt" in wanted:
            program.device.step({key: values[key] for key in OVERRIDES if key in values})
        return program.outputs(outputs)

    def to_cpu(self, model: nn.Module) -> None:
        """Copies weights, buffers, gradients not yet used and optimizer state from the session into the module."""
        self._of(model, "to_cpu").fetch(model)

    def to_rdu(self, model: nn.Module) -> None:
        """Copies the module's weights and buffers, and its optimizers' state, into the session."""
        self._of(model, "to_rdu").send(model)

    def _of(self, model: nn.Module, what: str) -> Any:
        if model not in self._programs:
            raise SambaError(f"{what}: the {type(model).__name__} was not traced: call samba.utils.trace_graph first")
        return self._programs[model].device

    def _program(self, output_tensors: Any) -> SectionProgram:
        for tensor in _listed(output_tensors):
            program = getattr(tensor, "_section_program", None)
            if program is not None:
                return program
        if self._current is None:
            raise SambaError("run: no module was traced in this process: call samba.utils.trace_graph first")
        return self._current


def _check_module(model: Any, what: str) -> None:
    if not isinstance(model, nn.Module):
        raise SambaError(f"{what}: the model is a torch.nn.Module, and not {kind_of(model)}")


def _listed(tensors: Any) -> list[torch.Tensor]:
    if tensors is None:
        return []
    listed = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
    if not all(isinstance(tensor, torch.Tensor) for tensor in listed):
        raise SambaError("output_tensors: those that trace_graph returned, or some of them")
    return listed


def _sections(section_types: Sequence[str] | str | None, program: SectionProgram) -> set[str]:
    if section_types is None:
        return set(program.sections)
    given = [section_types] if isinstance(section_types, str) else section_types
    wanted = [str(section).lower() for section in given]
    program.check_sections(wanted)
    return set(wanted)


def _numbers(hyperparam_dict: Any) -> dict[str, float]:
    """The hyperparameters that a session knows, those that are None left out."""
    if hyperparam_dict is not None and not isinstance(hyperparam_dict, Mapping):
        raise SambaError(f"hyperparam_dict: a dict of names and numbers, and not {kind_of(hyperparam_dict)}")
    numbers = {}
    for key in (*OVERRIDES, "p"):
        value = (hyperparam_dict or {}).get(key)
        if value is None:
            continue
        try:
            numbers[key] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise SambaError(f"hyperparam_dict: {key} is a number, and not {value!r}") from None
    return numbers


def _rate(values: Mapping[str, float]) -> float | None:
    rate = values.get("p")
    if rate is not None and not 0.0 <= rate <= 1.0:
        raise SambaError(f"hyperparam_dict: p is the rate of dropouts, from 0 to 1, and not {rate:g}")
    return rate


def _starts(
    outputs: Sequence[torch.Tensor], program: SectionProgram, loss_indices: Sequence[int] | int | None
) -> dict[int, torch.Tensor]:
    """The gradients that back-propagation starts with, by the number of their output."""
    starts = {}
    for place, output in enumerate(outputs):
        gradient = getattr(output, "sn_grad", None)
        if gradient is not None:
            if not isinstance(gradient, torch.Tensor):
                raise SambaError(f"sn_grad of output {place}: a tensor, and not {kind_of(gradient)}")
            starts[program.number_of(output, place)] = gradient
    if not starts:
        numbers = [loss_indices] if isinstance(loss_indices, int) else loss_indices or [0]
        return {number: program.ones(number) for number in numbers}
    return {number: program.start(number, plain(gradient)) for number, gradient in starts.items()}


def _is_data_parallel() -> bool:
    current = arguments.current()
    return bool(getattr(current, "data_parallel", False) or getattr(current, "reduce_on_rdu", False))


session = SambaSession()
"""The session of this process."""

compile = session.compile  # noqa: A001  the interface's word
trace_graph = session.trace_graph
run = session.run
