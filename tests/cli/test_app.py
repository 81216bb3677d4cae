"""The program around the commands: one line for an error, exit codes, spellings of options."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from bossa.errors import ModelError
from bossa.version import __version__

LONG = "a" * 5000


def test_version_prints_the_version(bossa):
    assert bossa("--version").out == f"bossa {__version__}\n"


def test_python_m_bossa_is_the_same_command():
    result = subprocess.run([sys.executable, "-m", "bossa", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"bossa {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "-h"], ["run", "--help"], ["cache", "list", "--help"]])
def test_help_is_printed_and_is_no_error(bossa, arguments):
    result = bossa(*arguments)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Usage: bossa")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compil"], "No such command 'compil'"),
        (["compile", "gpt2", "--precisoin", "fp32"], "Did you mean"),
        (["compile"], "no model is given"),
        (["compile", "gpt2", "--precision", "int3"], "'int3' is not one of"),
        (["compile", "gpt2", "--precision", "bf16"], "precision 'bf16' is no longer there: choose int8, or fp32"),
        (["compile", "gpt2", "--kv-precision", "int4"], "'int4' is not one of"),
        (["compile", "gpt2", "--max_seq_length", "0"], "'0' is not a number of tokens"),
        (["compile", "gpt2", "-b", "1000000000000"], "is not in the range 1<=x<=2147483647"),
        (["run", "-p", "x.pef", "--prompt", "x", "-b", "2147483648"], "is not in the range 1<=x<=2147483647"),
        (["run", "--prompt", "x"], "Missing option '-p'"),
        (["run", "--pef", "x.pef"], "give either --data_dir or --prompt"),
        (["run", "--pef", "x.pef", "--prompt", "x", "--data_dir", "y"], "give either --data_dir or --prompt"),
        (["run", "--pef", "x.pef", "--prompt", "x", "--output", "y"], "--output goes with --data_dir"),
        (["run", "--pef", "x.pef", "--prompt", "x", "--memory", "2 gigs"], "'2 gigs' is not a size"),
        (["run", "--pef", "x.pef", "--data_dir", "x", "--examples_to_generate", "-4"], "neither a count nor 'all'"),
        (["inspect"], "Missing argument 'PEF'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(bossa, arguments, says):
    result = bossa(*arguments)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert result.err.startswith("bossa: ")
    assert result.err.count("\n") == 1


def test_an_error_of_several_lines_is_told_in_one(bossa, compiling, tmp_path):
    compiling.error = ModelError("no such model: nothing\n  looked in a\x1b]0;\n  and b\n")
    result = bossa("compile", "nothing", "--output-folder", tmp_path)
    assert result.code == 2
    assert result.err.splitlines()[-1] == "bossa: no such model: nothing looked in a\\x1b]0; and b"
    assert "Traceback" not in result.err


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_adds_the_traceback(bossa, compiling, tmp_path, place):
    compiling.error = ModelError("no such model: nothing")
    arguments = ["compile", "nothing", "--output-folder", tmp_path]
    result = bossa(*(["--debug", *arguments] if place == "before" else [*arguments, "--debug"]))
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.err.endswith("bossa: no such model: nothing\n")


def test_an_error_of_the_system_names_the_file(bossa, compiling, tmp_path):
    compiling.error = OSError(28, "No space left on device", "/somewhere/x.pef")
    result = bossa("compile", "x", "--output-folder", tmp_path)
    assert (result.code, result.err.splitlines()[-1]) == (2, "bossa: /somewhere/x.pef: No space left on device")


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", LONG],
        ["run", "-p", LONG, "--prompt", "x"],
        ["run", "-p", "PEF", "--data_dir", LONG],
        ["run", "-p", "PEF", "--data_dir", "a/" * 3000],
        ["run", "-p", "PEF", "--model_name_or_path", f"./{LONG}", "--prompt", "x"],
        ["compile", LONG],
        ["compile", f"./{LONG}.gguf"],
        ["compile", "--config_name", LONG],
        ["compile", "x", "--output-folder", LONG],
        [LONG],
        ["compile", "x", f"--{LONG}"],
    ],
)
def test_a_name_longer_than_any_is_told_in_one_line_that_can_be_read(bossa, tiny_pef, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    result = bossa(*(str(tiny_pef) if argument == "PEF" else argument for argument in arguments))
    line = result.err.splitlines()[-1]
    assert result.code == 2
    assert line.startswith("bossa: ")
    assert len(line) < 1600
    assert "Traceback" not in result.err
    assert not line.endswith("too long")


def test_an_error_of_the_system_is_no_longer_than_a_person_reads(bossa, compiling, tmp_path):
    compiling.error = OSError(36, "File name too long", LONG)
    result = bossa("compile", "x", "--output-folder", tmp_path)
    line = result.err.splitlines()[-1]
    assert line.endswith("aaa: File name too long: give a shorter path")
    assert len(line) < 300


@pytest.mark.parametrize("arguments", [["compile", "tiny"], ["inspect", "x.pef"], ["compile", "tiny", "--debug"]])
def test_a_current_folder_that_is_gone_is_told(arguments, tmp_path):
    folder = tmp_path / "gone"
    command = [sys.executable, "-c", f"import os; os.rmdir({str(folder)!r}); from bossa.cli import main; main()"]
    folder.mkdir()
    result = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True)
    last = result.stderr.splitlines()[-1]
    if arguments[0] == "compile":
        assert last == "bossa: the current folder has been removed: change to one that is there (cd)"
    else:
        assert last.startswith("bossa: x.pef: no such file")


def test_ctrl_c_is_exit_130_without_a_traceback(bossa, compiling, tmp_path):
    compiling.error = KeyboardInterrupt()
    result = bossa("compile", "x", "--output-folder", tmp_path)
    assert (result.code, result.err.splitlines()[-1]) == (130, "bossa: interrupted")


@pytest.mark.parametrize(
    "spelling", ["--max_seq_length", "--max-seq-length", "--max-seq_length"], ids=["underscores", "hyphens", "both"]
)
@pytest.mark.parametrize("joined", [True, False], ids=["equals", "space"])
def test_options_may_be_written_with_hyphens_or_underscores(bossa, compiling, tmp_path, spelling, joined):
    option = [f"{spelling}=77"] if joined else [spelling, "77"]
    assert bossa("compile", "x", *option, "--output_folder", tmp_path, "--pef_name", "my_name").code == 0
    assert compiling.options["max_seq_length"] == 77
    assert (tmp_path / "my_name" / "my_name.pef").exists()


def test_a_warning_of_ours_is_one_line_and_those_of_libraries_are_not_shown(bossa, compiling, tmp_path, monkeypatch):
    compile_model = compiling.compile

    def warn(*arguments, **options):
        warnings.warn_explicit("the cache is full\x1b[2J", UserWarning, "cache.py", 1, module="bossa.weights.bind")
        warnings.warn_explicit("a function is old", FutureWarning, "torch.py", 1, module="torch.nn")
        return compile_model(*arguments, **options)

    monkeypatch.setattr(compiling, "compile", warn)
    lines = bossa("compile", "x", "--output-folder", tmp_path).err.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == ["bossa: warning: the cache is full\\x1b[2J"]
