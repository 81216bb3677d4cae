"""Compiled sections from memory: written to a private folder for the moment that it takes to load them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bossa.errors import PefError
from bossa.targets.cpu.elf import trouble

_loaded: dict[bytes, Any] = {}
"""Libraries by their SHA-256: they hold no tensors, so that every program of one file shares them."""


def load(code: memoryview, calls: memoryview | None, where: str) -> Callable[[list[torch.Tensor]], list[torch.Tensor]]:
    """The function that a library holds.

    Args:
        code: the bytes of the shared object, compared by the caller with the manifest.
        calls: the operators that it calls by name, as JSON; None where there are none.

    Raises:
        PefError: it cannot be loaded here.
    """
    key = hashlib.sha256(code).digest()
    if key not in _loaded:
        if (why := trouble(code)) is not None:
            raise PefError(f"{where}: a section does not load here ({why}): compile the model again")
        # The loader keeps what it has mapped, so that nothing is needed of the files afterwards.
        with tempfile.TemporaryDirectory(prefix="bossa-sections-") as folder:
            path = Path(folder) / "section.so"
            path.write_bytes(code)
            if calls is not None:
                path.with_suffix(".json").write_bytes(calls)
            try:
                _loaded[key] = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)
            except RuntimeError as error:
                reason = str(error).partition("\n")[0]
                raise PefError(f"{where}: a section does not load here ({reason}): compile the model again") from error
    return _loaded[key].run
