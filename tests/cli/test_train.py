"""bossa train: what its arguments may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from bossa.cli import main


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "no model is given"),
    (["gpt2", "--model_name_or_path", "opt"], "two models are given: gpt2 and opt"),
    (["gpt2", "--lora-rank", "0"], "0 is not in the range"),
    (["gpt2", "--lora-rank", "4", "--checkpoint_format", "pt"], "an adapter is written in PEFT's format alone"),
    (["gpt2", "--lora-rank", "4", "--checkpoint_name", "a.pt"], "an adapter is written in PEFT's format alone"),
    (["./nowhere"], "no such model directory"),
])  # fmt: skip
def test_wrong_arguments_are_said_in_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    code = main(["train", *arguments, "--data_dir", str(tmp_path), "--output", str(tmp_path / "out")])
    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    assert words in told.err
    assert told.err.startswith("bossa: ")
    assert told.err.count("\n") == 1
