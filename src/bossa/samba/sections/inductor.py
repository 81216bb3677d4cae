"""A graph compiled ahead of time by Inductor: C++ that needs neither Python nor a compiler when it runs."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx
from torch._inductor import aot_compile
from torch._inductor.cpu_vec_isa import invalid_vec_isa, pick_vec_isa

from bossa.errors import ToolchainError
from bossa.frontend.exclusive import alone
from bossa.targets.cpu import features as cpu

OPTIONS = {
    "fallback_random": True,
    "aot_inductor.enable_line_tables": False,
    "aot_inductor.enable_frame_pointer": False,
    "aot_inductor.compile_wrapper_opt_level": "O1",
}


@dataclass(frozen=True)
class Machine:
    """What compiled code asks of a machine: one of Bossa's targets, and flags of the CPU beyond it."""

    target: str
    features: tuple[str, ...]

    @classmethod
    def here(cls) -> Machine:
        """What Inductor compiles for here. Finding out compiles a test program."""
        target = cpu.best_target(["x86-64-v4", "x86-64-v3", "aarch64", "portable"])
        assert target is not None
        isa = pick_vec_isa()
        words = str(isa).split() if isa is not invalid_vec_isa else []
        return cls(target, tuple(sorted(set(words) & cpu.host_features() - {"avx2"})))

    def runs_here(self) -> bool:
        return cpu.supports(self.target) and cpu.host_features() >= set(self.features)


@dataclass(frozen=True)
class Library:
    """A shared library, and the calls that it leaves to torch by name, as JSON (empty where there are none)."""

    code: bytes
    calls: bytes


@alone()
def compile_library(graph: fx.GraphModule, machine: Machine) -> Library:
    """Compiles a graph of flat tensors.

    Raises:
        ToolchainError: there is no C++ compiler, or it failed.
    """
    examples = tuple(node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder")
    options = dict(OPTIONS)
    if machine.target.startswith("x86-64"):
        options["cpp.march"] = machine.target
    with tempfile.TemporaryDirectory(prefix="bossa-inductor-") as folder, _threads(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            path = Path(str(aot_compile(graph, examples, options={**options, "aot_inductor.output_path": folder})))
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ToolchainError(f"Inductor cannot compile the graph: {type(error).__name__}: {reason}") from error
        calls = path.with_suffix(".json")
        return Library(path.read_bytes(), calls.read_bytes() if calls.exists() else b"")


@contextlib.contextmanager
def _threads() -> Iterator[None]:
    """As many compile threads as ``SN_NUM_THREADS`` says."""
    count = os.environ.get("SN_NUM_THREADS", "")
    if not count.isdigit() or count == "0":
        yield
        return
    with torch._inductor.config.patch(compile_threads=int(count)):
        yield
