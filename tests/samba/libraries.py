"""What a run of the tests has compiled once, in whichever of its processes, it does not compile again."""

from __future__ import annotations

import fcntl
import hashlib
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import fx

import bossa.samba.sections.compiler
import bossa.targets.cpu.assemble
from bossa.samba.sections.inductor import OPTIONS, Library, Machine

_folder: Path | None = None


def keep_in(folder: Path) -> None:
    """Where the processes of this run keep what they compile."""
    global _folder
    folder.mkdir(exist_ok=True)
    _folder = folder


@contextmanager
def compiled_once() -> Iterator[None]:
    """Keeps sections by their graph, and native programs by their source."""
    library, native = bossa.samba.sections.compiler.compile_library, bossa.targets.cpu.assemble.build_library

    def compile_library(graph: fx.GraphModule, machine: Machine) -> Library:
        values = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
        shapes = [(value.shape, value.stride(), value.dtype) for value in values]
        return _once((graph.code, shapes, machine, OPTIONS), lambda: library(graph, machine))

    def build_library(source: str, target: str) -> bytes:
        return _once((source, target), lambda: native(source, target))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bossa.samba.sections.compiler, "compile_library", compile_library)
        patch.setattr(bossa.targets.cpu.assemble, "build_library", build_library)
        yield


def _once(key: Any, make: Callable[[], Any]) -> Any:
    assert _folder is not None
    path = _folder / hashlib.sha256(repr(key).encode()).hexdigest()
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        kept = file.read()
        if kept:
            return pickle.loads(kept)
        made = make()
        file.write(pickle.dumps(made))
        return made
