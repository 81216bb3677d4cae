"""Programs that import ``sambaflow`` run as they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from bossa.sambaflow.__main__ import main


@pytest.fixture
def gpt2() -> Iterator[type]:
    """The class whose ``__call__`` a program replaces, put right again after the test."""
    cls = transformers.GPT2LMHeadModel
    yield cls
    for name in ("__call__", "__torch_call__"):
        if name in vars(cls):
            delattr(cls, name)


def test_a_hook_into_generate_gives_the_tokens_of_generate(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gpt2: type
):
    monkeypatch.chdir(tmp_path)
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=48, vocab_size=95, bos_token_id=0, eos_token_id=0
    )
    config.save_pretrained(tmp_path / "config")
    torch.manual_seed(5)
    model = gpt2(config).eval()
    prompts = ["The film was", "B", "I have never seen it"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    expected = []
    for prompt in prompts:
        ids = torch.tensor([[ord(letter) - 31 for letter in prompt]])
        made = model.generate(ids, max_length=ids.shape[1] + 12, do_sample=False, pad_token_id=0)
        expected.append("".join(chr(int(i) + 31) for i in made[0]))

    # The patch turns these weights round, also in what the training program saves.
    state = {
        name: value.t().contiguous() if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else value
        for name, value in model.state_dict().items()
    }
    torch.save(state, tmp_path / "checkpoint.pt")
    program, common = str(programs / "generation" / "program.py"), ["--config_name=config", "--max_seq_length", "48"]
    for _ in range(2):  # all of it twice in one process: the class is a patched one the second time
        assert main([program, "compile", "--inference", *common, "--pef-name=gpt2", "--output-folder=pefs"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "pefs/gpt2/gpt2.pef"
        run = ["--pef=pefs/gpt2/gpt2.pef", "--data_dir=prompts.txt", "--max_tokens_to_generate=12"]
        assert main([program, "run", "--inference", *common, *run, "--checkpoint_name=checkpoint.pt"]) == 0
        assert capsys.readouterr().out == f"\n{'-' * 20}\n".join(expected) + "\n"


def test_a_classifier_compiles_trains_and_is_tested_on_the_cpu(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.yaml").write_text("num-steps: 30\n")
    program = str(programs / "classifier" / "program.py")
    assert main([program, "compile", "-b=16", "--pef-name=classifier", "-o1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "out/classifier/classifier.pef"
    arguments = ["-b", "16", "-p", "out/classifier/classifier.pef", "--yaml-config", "more.yaml"]
    assert main([program, "run", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Accuracy: 100.00"


def test_two_programs_have_packages_of_one_name(programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for word in ("first", "second"):
        (tmp_path / word / "utils").mkdir(parents=True)
        (tmp_path / word / "utils" / "words.py").write_text(f"WORD = {word!r}\n")
        (tmp_path / word / "program.py").write_text("from utils.words import WORD\nprint(WORD, __name__, __file__)\n")
        program = str(tmp_path / word / "program.py")
        assert main([program]) == 0
        assert capsys.readouterr().out == f"{word} __main__ {program}\n"
    assert "utils" not in sys.modules


def test_the_process_is_as_it_was_after_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    before = sys.modules["__main__"], sys.argv, list(sys.path)
    (tmp_path / "program.py").write_text("import sys\nprint(sys.argv[1:], sys.path[0])\nsys.exit(3)\n")
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path / "program.py"), "a", "--b"])
    assert exit_.value.code == 3
    assert capsys.readouterr().out == f"['a', '--b'] {tmp_path}\n"
    assert (sys.modules["__main__"], sys.argv, sys.path) == before


def test_an_error_of_ours_is_one_line_and_one_of_the_programs_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    program = tmp_path / "program.py"
    assert main([str(program)]) == 2
    assert capsys.readouterr().err == (
        f"bossa: {program}: no such program; python -m bossa.sambaflow takes the path of a Python file\n"
    )
    program.write_text("from sambaflow import samba\nsamba.from_torch_model_(1)\n")
    assert main([str(program)]) == 2
    assert capsys.readouterr().err == "bossa: samba.from_torch_model_ takes a torch.nn.Module, not int\n"
    assert main([str(program), "--debug"]) == 2
    assert capsys.readouterr().err.startswith("Traceback")
    program.write_text("def f():\n    return 1 / 0\nf()\n")
    assert main([str(program)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert "bossa" not in error
    assert error.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_the_module_runs_a_program_from_the_command_line(tmp_path: Path):
    (tmp_path / "program.py").write_text("import sys, sambaflow\nprint(sambaflow.__name__, sys.argv)\n")
    command = [sys.executable, "-m", "bossa.sambaflow", "program.py", "run"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == "bossa.sambaflow ['program.py', 'run']\n"
    usage = subprocess.run(command[:3], capture_output=True, text=True, check=False)
    assert usage.returncode == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("from sambaflow.samba import nosuch", "samba.nosuch: "),
        ("from sambaflow.samba.utils import nosuch", "samba.utils.nosuch: "),
        ("from sambaflow import nosuch", "sambaflow.nosuch: "),
        ("import sambaflow\nsambaflow.nosuch", "sambaflow.nosuch: "),
        ("from sambaflow import samba\nsamba.nosuch(1)", "samba.nosuch: "),
        ("from sambaflow import samba\nsamba.utils.nosuch(1)", "samba.utils.nosuch: "),
        ("from sambaflow import samba\nsamba.optim.Nosuch()", "samba.optim.Nosuch: "),
        ("from sambaflow import samba\nsamba.SambaTensor.nosuch", "samba.tensor.SambaTensor.nosuch: "),
        ("import sambaflow.samba.nosuch", "import sambaflow.samba.nosuch: "),
        ("from sambaflow.nosuch import name", "import sambaflow.nosuch: "),
    ],
)
def test_a_name_that_is_not_here_is_one_line_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
):
    program = tmp_path / "program.py"
    program.write_text(f"{text}\n")
    assert main([str(program)]) == 2
    error = capsys.readouterr().err
    assert error == f"bossa: {says}Bossa has nothing of this name; docs/samba.md lists what it has\n"
    assert main([str(program), "--debug"]) == 2
    assert capsys.readouterr().err.startswith("Traceback")


@pytest.mark.parametrize("text", ["import json\njson.nosuch", "from json import nosuch", "(1).nosuch", "import nosuch"])
def test_a_name_that_others_do_not_have_is_the_programs_own_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
):
    program = tmp_path / "program.py"
    program.write_text(f"{text}\n")
    assert main([str(program)]) == 1
    assert capsys.readouterr().err.startswith("Traceback")


def test_a_program_can_ask_whether_a_name_is_here():
    from bossa import samba

    assert not hasattr(samba, "nosuch")
    assert getattr(samba, "nosuch", 3) == 3
    with pytest.raises(AttributeError, match=r"samba\.nosuch: Bossa has nothing of this name"):
        samba.nosuch  # noqa: B018
