"""Serves ``fwd`` of a causal language model from its native program, and what that cannot from the sections."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import torch

from bossa.errors import WeightsError
from bossa.host.process import Process
from bossa.ir.slot import Slot
from bossa.pef import Pef
from bossa.pef.module import CausalPlan, ModulePef
from bossa.runtime.memory import FEWEST_ROWS, ROWS_OF_A_STEP
from bossa.runtime.program import LoadedProgram, open_library
from bossa.samba.causal.inputs import lengths_of, tokens_of
from bossa.samba.causal.sequences import Sequences
from bossa.samba.causal.weights import DeviceWeights, digest, versions_of
from bossa.samba.logging import samba_logger
from bossa.samba.sections.device import Device
from bossa.samba.sections.executor import Executor
from bossa.samba.sections.graph import Graph
from bossa.samba.sections.program import SectionProgram as Sections
from bossa.targets.cpu.packing import packer_of
from bossa.weights.bind import bind


class NativeExecutor:
    """The native program of a causal language model, on the weights of a device.

    Args:
        pef: the program's file.
        plan: which inputs of the graph are which.
        graph: the traced graph, whose forward pass the program does.
        sections: runs what the program does not: other masks and positions than those of sequences from their start.
    """

    def __init__(self, pef: Pef, plan: CausalPlan, graph: Graph, device: Device, sections: Executor) -> None:
        self._pef, self._plan, self._device, self._sections = pef, plan, device, sections
        self._shape = graph.named("input")[plan.input_ids].spec.shape
        self._constants = graph.constants
        self._close: Callable[[], object] = lambda: None
        self._sequences: Sequences | None = None
        self._bound: list[tuple[int, int]] = []
        self._process = Process()

    @classmethod
    def of(cls, pef: ModulePef, plan: CausalPlan, program: Sections) -> NativeExecutor:
        """That of a file, for its sections."""
        return cls(pef.native(), plan, program.graph, program.device, program.executors[-1])

    def can_run(self, rate: float | None) -> bool:
        return self._sections.can_run(rate)

    def run_forward(self, inputs: Sequence[torch.Tensor], rate: float | None) -> list[torch.Tensor]:
        logits = self.logits(inputs)
        return self._sections.run_forward(inputs, rate) if logits is None else [logits]

    def logits(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """The logits ``[b, L, V]`` from the native program; None where it does not compute them."""
        self._process.check()  # before torch is asked for anything: its threads are not in a forked child either
        plan = self._plan
        ids = inputs[plan.input_ids]
        mask = None if plan.attention_mask is None else inputs[plan.attention_mask]
        lengths = lengths_of(ids, mask, None if plan.position_ids is None else inputs[plan.position_ids])
        if lengths is None:
            samba_logger.info(
                "a mask or position ids are not those of whole sequences, so that the traced sections run: slower",
                log_limit=1,
            )
            return None
        sequences = self._current()
        return None if sequences is None else sequences.logits(tokens_of(ids), lengths)

    def _current(self) -> Sequences | None:
        """The sequences on the device's weights as they are now; None where the program cannot use these."""
        versions = versions_of(self._device)
        if versions != self._bound:
            self._sequences = None
            self._close()
            self._bound = versions
            try:
                self._sequences = self._open()
            except WeightsError as error:
                samba_logger.info(f"{self._pef.where}: the traced sections run, and not the native program: {error}")
        return self._sequences

    def _open(self) -> Sequences:
        """Packs the weights.

        Raises:
            WeightsError: they do not fit the program, or are not finite.
        """
        if digest(constants_of(self._device, self._constants, self._pef)) != self._plan.constants:
            raise WeightsError("tensors of the module that are no weights are others than when it was compiled")
        manifest = self._pef.manifest
        _, library = open_library(self._pef)
        bound = bind(
            [Slot.from_json(dict(slot)) for slot in manifest.slots],
            DeviceWeights(self._device),
            ignored=manifest.ignored_tensors,
            packer=packer_of(library),
        )
        sequences, length = self._shape
        pages = sequences * -(-length // manifest.page_size)
        try:
            program = LoadedProgram(
                self._pef, bound, pages=pages, max_rows=max(FEWEST_ROWS, min(length, ROWS_OF_A_STEP))
            )
        except BaseException:
            bound.close()
            raise
        self._close = weakref.finalize(self, program.close)
        return Sequences(program, sequences, length)


def constants_of(device: Device, constants: Sequence[torch.Tensor], pef: Pef) -> list[torch.Tensor]:
    """The tensors that the program was compiled with: constants of the graph, and buffers that it does not bind."""
    wanted = {name for slot in pef.manifest.slots for source in slot["sources"] for name in source["names"]}
    return [*constants, *(tensor for name, tensor in device.buffers.items() if name not in wanted)]
