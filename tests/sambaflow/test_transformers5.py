"""What transformers 5 removed is there for programs, and nowhere else."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bossa.sambaflow import transformers5

PROGRAM = """
import torch, transformers
import bossa.samba
from transformers import modeling_utils
from transformers.models.gpt2 import modeling_gpt2
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from bossa.sambaflow.transformers5 import restore

assert not hasattr(modeling_utils, "Conv1D") and not hasattr(GPT2Attention, "bias")
restore()
restore()
assert transformers.modeling_utils.Conv1D is transformers.pytorch_utils.Conv1D
config = transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, n_positions=6, vocab_size=9)
with torch.device("meta"):
    attention, other = (block.attn for block in transformers.GPT2LMHeadModel(config).transformer.h)
assert torch.equal(attention.bias, torch.ones(6, 6).tril().bool().view(1, 1, 6, 6))
assert attention.masked_bias == -1e4
attention.bias = attention.bias[:, :, :3, :3]
assert attention.bias.shape[-1] == 3 and other.bias.shape[-1] == 6
assert not dict(attention.named_buffers())
"""


def test_the_names_come_back_when_a_program_runs_and_not_before():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_module_that_is_imported_later_is_put_right_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "imported_later.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))

    def put_back(module: ModuleType) -> None:
        module.OTHER = module.VALUE + 1  # type: ignore[attr-defined]

    monkeypatch.setitem(transformers5._RESTORED, "imported_later", put_back)
    transformers5.restore()
    module = importlib.import_module("imported_later")
    assert module.OTHER == 2
    assert module.__spec__ is not None
    assert module.__spec__.loader is module.__loader__
    assert type(module.__loader__).__module__ != transformers5.__name__
    del sys.modules["imported_later"]
