"""What transformers 5 removed is there for programs, and nowhere else."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import torch
from bossa.sambaflow.transformers5 import restore
{before}
restore()
restore()
import transformers
from transformers.modeling_utils import Conv1D
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention, GPT2LMHeadModel

assert Conv1D is transformers.pytorch_utils.Conv1D is transformers.modeling_utils.Conv1D
config = transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, n_positions=6, vocab_size=9)
with torch.device("meta"):
    attention, other = (block.attn for block in GPT2LMHeadModel(config).transformer.h)
assert torch.equal(attention.bias, torch.ones(6, 6).tril().bool().view(1, 1, 6, 6))
assert attention.masked_bias == -1e4
attention.bias = attention.bias[:, :, :3, :3]
assert attention.bias.shape[-1] == 3 and other.bias.shape[-1] == 6
assert GPT2Attention.__module__ == "transformers.models.gpt2.modeling_gpt2"
assert transformers.modeling_utils.__spec__.name == "transformers.modeling_utils"
assert not dict(attention.named_buffers())
"""


def run(program: str) -> None:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_names_are_back_whether_transformers_was_imported_before_or_after():
    run(PROGRAM.format(before=""))
    run(PROGRAM.format(before="from transformers import GPT2LMHeadModel"))


def test_importing_samba_changes_nothing_in_transformers():
    run(
        "from bossa import samba\n"
        "import transformers.modeling_utils, transformers.models.gpt2.modeling_gpt2 as gpt2\n"
        "assert not hasattr(transformers.modeling_utils, 'Conv1D') and not hasattr(gpt2.GPT2Attention, 'bias')\n"
    )
