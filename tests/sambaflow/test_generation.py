"""The program that generates, in a real session: its step is served by the native program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bossa.samba.sections.executor import SectionExecutor
from bossa.sambaflow.__main__ import main


@pytest.fixture(autouse=True)
def eager_session() -> None:
    """None here: the session is the one that programs have."""


@pytest.fixture
def gpt2() -> Iterator[type]:
    """The class whose ``__call__`` a program replaces, put right again after the test."""
    cls = transformers.GPT2LMHeadModel
    yield cls
    for name in ("__call__", "__torch_call__"):
        if name in vars(cls):
            delattr(cls, name)


def test_a_step_in_generate_is_served_natively_and_gives_the_tokens_of_generate(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gpt2: Any
):
    monkeypatch.chdir(tmp_path)
    config = transformers.GPT2Config(
        n_embd=32, n_layer=1, n_head=4, n_positions=48, vocab_size=95, bos_token_id=0, eos_token_id=0
    )
    config.save_pretrained(tmp_path / "config")
    torch.manual_seed(5)
    model = gpt2(config).eval()
    prompts = ["The film was", "B", "The film was not", "I have never seen it"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    expected = []
    for prompt in prompts:
        ids = torch.tensor([[ord(letter) - 31 for letter in prompt]])
        made = model.generate(ids, max_length=ids.shape[1] + 12, do_sample=False, pad_token_id=0)
        expected.append("".join(chr(int(i) + 31) for i in made[0]))
    state = {
        name: value.t().contiguous() if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else value
        for name, value in model.state_dict().items()
    }
    torch.save(state, tmp_path / "checkpoint.pt")

    def left_over(*_inputs: Any, **_more: Any) -> None:
        raise AssertionError("this step belongs to the program before")

    gpt2.__call__ = left_over
    program, common = str(programs / "generation" / "program.py"), ["--config_name=config", "--max_seq_length", "48"]
    assert main([program, "compile", "--inference", *common, "--pef-name=gpt2", "--output-folder=pefs"]) == 0
    capsys.readouterr()

    def not_here(*_arguments: Any) -> None:
        raise AssertionError("the traced sections ran")

    monkeypatch.setattr(SectionExecutor, "run_forward", not_here)
    run = ["--pef=pefs/gpt2/gpt2.pef", "--data_dir=prompts.txt", "--max_tokens_to_generate=12"]
    assert main([program, "run", "--inference", *common, *run, "--checkpoint_name=checkpoint.pt"]) == 0
    assert capsys.readouterr().out == f"\n{'-' * 20}\n".join(expected) + "\n"
