"""bossa compile: what it asks of the compiler, and where the program goes."""

from __future__ import annotations

import os
import re

import pytest

from bossa.errors import CompileError


def test_the_last_line_printed_is_where_the_program_is(bossa, compiling, tmp_path):
    result = bossa("compile", "gpt2", "--output-folder", tmp_path / "out", "--pef-name", "gpt")
    path = tmp_path / "out" / "gpt" / "gpt.pef"
    assert result.code == 0
    assert result.out == f"{path}\n"
    assert path.read_bytes() == b"a program"


def test_every_stage_is_told_on_stderr_with_its_time(bossa, compiling, tmp_path):
    result = bossa("compile", "gpt2", "--output-folder", tmp_path)
    stages = re.findall(r"^  (\w+) +[\d.]+ s$", result.err, re.MULTILINE)
    assert stages == ["trace", "build", "write"]
    assert len(result.err.splitlines()) == 3


def test_the_seeds_arguments_go_to_the_compiler(bossa, compiling, tmp_path):
    result = bossa(
        *("compile", "--inference", "--model_name_or_path", "gpt2", "--config_name", "small.json"),
        *("--cache_dir", tmp_path, "--max_seq_length=1024", "-b", "4", "--examples_to_generate", "20"),
        *(
            "--output-folder",
            tmp_path,
            "--pef-name",
            "gpt",
            "--precision",
            "int8",
            "--kv-precision",
            "int8",
            "--bundle",
            "--adapters",
        ),
        *("--target", "x86-64-v3", "--target", "portable", "--trust-remote-code"),
    )
    assert result.code == 0
    assert compiling.model == "gpt2"
    assert compiling.options == {
        "config_name": "small.json",
        "precision": "int8",
        "kv_precision": "int8",
        "max_seq_length": 1024,
        "batch_size": 4,
        "targets": ["x86-64-v3", "portable"],
        "bundle": True,
        "adapters": True,
        "cache_dir": tmp_path,
        "trust_remote_code": True,
        "name": "gpt",
    }


def test_what_is_not_given_is_the_seeds_default(bossa, compiling, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = bossa("compile", "gpt2")
    assert result.code == 0
    assert compiling.options["max_seq_length"] is None
    assert compiling.options["batch_size"] == 1
    assert compiling.options["precision"] == "fp32"
    assert compiling.options["kv_precision"] == "fp32"
    assert compiling.options["targets"] is None
    name = compiling.options["name"]
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-{os.getpid()}", name)
    assert result.out == f"out/{name}/{name}.pef\n"


def test_a_config_alone_is_enough(bossa, compiling, tmp_path):
    assert bossa("compile", "--config_name", "small.json", "--output-folder", tmp_path).code == 0
    assert (compiling.model, compiling.options["config_name"]) == (None, "small.json")


def test_two_different_models_are_refused(bossa, compiling, tmp_path):
    result = bossa("compile", "gpt2", "--model_name_or_path", "opt", "--output-folder", tmp_path)
    assert result.code == 2
    assert "gpt2 and opt" in result.err


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", 'x"\nint y;//', "a\x1b[31m", "a\tb", "a\u2028b", "x" * 201]
)
def test_a_name_that_is_no_file_name_is_refused(bossa, compiling, tmp_path, name):
    result = bossa("compile", "gpt2", "--output-folder", tmp_path, "--pef-name", name)
    assert result.code == 2
    assert "is not a file name" in result.err
    assert result.err.count("\n") == 1
    assert result.err.removesuffix("\n").isprintable()
    assert compiling.model is None


def test_a_folder_that_cannot_be_is_refused_before_the_work(bossa, compiling, tmp_path):
    (tmp_path / "out").write_text("a file")
    result = bossa("compile", "gpt2", "--output-folder", tmp_path / "out", "--pef-name", "gpt")
    assert result.code == 2
    assert "out is not a writable folder" in result.err
    assert compiling.model is None


def test_a_failed_compilation_leaves_nothing(bossa, compiling, tmp_path):
    compiling.error = CompileError("aten.frobnicate in model.layers.0 is not supported")
    result = bossa("compile", "gpt2", "--output-folder", tmp_path / "out")
    assert result.code == 2
    assert result.err.splitlines()[-1] == "bossa: aten.frobnicate in model.layers.0 is not supported"
    assert "trace" not in result.err  # a stage that fails has no line
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_cannot_be_written_leaves_nothing(bossa, compiling, tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        def save(path):
            raise OSError(28, "No space left on device", str(path))

        return type("Pef", (), {"save": staticmethod(save)})

    monkeypatch.setattr(compiling, "compile", full)
    result = bossa("compile", "gpt2", "--output-folder", tmp_path / "a" / "b", "--pef-name", "gpt")
    assert result.code == 2
    assert "No space left on device" in result.err
    assert list(tmp_path.iterdir()) == []


def test_torch_that_is_not_installed_is_said_with_the_remedy(bossa, compiling, tmp_path):
    compiling.error = ModuleNotFoundError("No module named 'torch'", name="torch")
    result = bossa("compile", "gpt2", "--output-folder", tmp_path)
    assert result.code == 2
    assert "compiling needs torch" in result.err
    assert "pip install 'bossa[compile]'" in result.err
