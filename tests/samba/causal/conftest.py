"""Program files of causal language models, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bossa import samba
from samba.causal.models import examples_of, llama, patched_gpt2
from samba.compiled import compiled


@pytest.fixture(scope="session")
def patched_pef(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of `patched_gpt2`, one sequence."""
    return _compiled(patched_gpt2(), 1, tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def llama_pef(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of `llama`, two sequences."""
    return _compiled(llama(), 2, tmp_path_factory.mktemp("llama"))


def _compiled(model: torch.nn.Module, sequences: int, folder: Path) -> str:
    return compiled(folder, samba.from_torch_model_(model), examples_of(model, sequences), inference=True)
