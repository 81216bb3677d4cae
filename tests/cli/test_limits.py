"""The real program at its limits: records that cannot run, disks that are full, Ctrl-C, and no torch anywhere."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.end_to_end

BOSSA = [sys.executable, "-m", "bossa"]
SEPARATOR = "\n" + "-" * 20 + "\n"


@pytest.fixture
def environment(weight_cache):
    return {**os.environ, "BOSSA_CACHE": str(weight_cache)}


@pytest.fixture
def arguments(tiny_pef, tiny_model):
    return ["run", "-p", str(tiny_pef), "--model_name_or_path", str(tiny_model)]


@pytest.fixture
def many(tmp_path) -> Path:
    """1,000 records, of more tokens than a test would wait for."""
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Film {n}"}) + "\n" for n in range(1000)))
    return path


BAD = {
    2: (b"{not json", "not JSON"),
    3: (b'{"text": "no prompt"}', 'no "prompt"'),
    4: (b'{"prompt": ""}', "empty"),
    5: (b'{"prompt": 7}', "not a string but a number"),
    6: (b'{"prompt": ["a"]}', "not a string but a list"),
    7: (b"[1, 2]", "not a JSON object but a list"),
    8: (json.dumps({"prompt": "long " * 40}).encode(), "200 tokens"),
    9: (b'{"prompt": "\xff"}', "not UTF-8"),
}


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Good records at lines 1 and 10, and each kind of bad one between them."""
    path = tmp_path / "mixed.jsonl"
    lines = [b'{"prompt": "The film", "id": 1}', *(line for line, _ in BAD.values()), b'{"prompt": "A"}']
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_records_that_cannot_run_become_error_records_and_the_rest_go_on(bossa, arguments, mixed, tmp_path):
    output = tmp_path / "out.jsonl"
    result = bossa(*arguments, "--data_dir", mixed, "--output", output, "--max_tokens_to_generate", "3")
    assert (result.code, result.out) == (3, "")
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(records) == 10
    for line, (_, reason) in BAD.items():
        error = records[line - 1]["error"]
        assert (error["file"], error["line"]) == (str(mixed), line)
        assert reason in error["reason"]
    assert [len(records[place]["token_ids"]) for place in (0, -1)] == [3, 3]
    assert records[0]["id"] == 1
    assert "8 records were errors" in result.err


def test_as_text_they_are_lines_on_stderr(bossa, arguments, mixed):
    result = bossa(*arguments, "--data_dir", mixed, "--max_tokens_to_generate", "3")
    assert result.code == 3
    assert len(result.out.split(SEPARATOR)) == 2
    for line, (_, reason) in BAD.items():
        assert any(f"{mixed}, line {line}: " in told and reason in told for told in result.err.splitlines())


@pytest.mark.parametrize(("side", "kept"), [("left", "END"), ("right", "START")])
def test_truncation_makes_room_instead(bossa, arguments, tmp_path, side, kept):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "START" + "-" * 200 + "END"}))
    result = bossa(*arguments, "--data_dir", path, "--truncation", side, "--max_tokens_to_generate", "8")
    assert result.code == 0
    assert kept in result.out
    assert ({"START", "END"} - {kept}).pop() not in result.out


def written(folder: Path) -> int:
    """Records so far of the one output that is being written there."""
    return sum(part.read_bytes().count(b"\n") for part in folder.glob(".*.part"))


def test_ctrl_c_keeps_what_is_finished(arguments, environment, many, tmp_path, start):
    output = tmp_path / "out.jsonl"
    options = ["--data_dir", str(many), "--output", str(output), "--examples_to_generate", "all", "-b", "1"]
    process = start([*BOSSA, *arguments, *options, "--max_tokens_to_generate", "100"], env=environment, text=True)
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and written(tmp_path) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert err.splitlines()[-1] == "bossa: interrupted"
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert 3 <= len(records) < 1000
    assert [record["prompt"] for record in records] == [f"Film {n}" for n in range(len(records))]
    assert list(tmp_path.glob(".out*")) == []


def limit_files(size: int):
    """For a child: a write beyond ``size`` bytes of a file fails, as it does on a disk that is full."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_disk_that_is_full_leaves_no_program_file(tiny_model, environment, tmp_path):
    # The C++ compiler must still be able to write: a program that is there is enough for this.
    code = "import sys; from bossa.pef import Pef; Pef.open(sys.argv[1]).save(sys.argv[2])"
    pef = tmp_path / "in.pef"
    from bossa.pef import Pef

    manifest = _manifest()
    Pef.build(manifest, {"config.json": b"{}", "blob": bytes(200_000)}).save(pef)
    target = tmp_path / "out" / "x.pef"
    result = subprocess.run(
        [sys.executable, "-c", code, str(pef), str(target)],
        capture_output=True,
        text=True,
        preexec_fn=limit_files(100_000),
        check=False,
    )
    assert "PefError" in result.stderr.splitlines()[-1]
    assert "x.pef" in result.stderr.splitlines()[-1]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [pef]


def _manifest() -> dict[str, object]:
    numbers = dict.fromkeys(["max_seq_length", "batch_size", "vocab_size", "page_size", "parameters"], 1)
    texts = dict.fromkeys(["bossa_version", "name", "architecture", "model_type"], "x")
    lists: dict[str, list[object]] = {
        name: [] for name in ("targets", "slots", "constants", "ignored_tensors", "sections")
    }
    return {
        **numbers,
        **texts,
        **lists,
        **{"precision": "fp32", "page_bytes": 0, "kv_precision": "fp32", "arena_bytes_per_row": 0},
        **{"torch_version": "", "transformers_version": ""},
    }


@pytest.fixture
def wide(tiny_model, tmp_path_factory) -> tuple[list[str], int]:
    """Arguments that run a model with packed weights larger than its library on any target; and the library's size."""
    import torch
    from transformers import AutoConfig, GPT2LMHeadModel

    from bossa.compiler import compile as compile_model

    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(6)
    GPT2LMHeadModel(AutoConfig.from_pretrained(tiny_model, n_embd=192)).save_pretrained(folder / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, folder / "model")
    pef = compile_model(folder / "model", name="wide").save(folder / "wide.pef")
    with zipfile.ZipFile(pef) as file:
        library = max(info.file_size for info in file.infolist() if info.filename.endswith(".so"))
    return ["run", "-p", str(pef), "--model_name_or_path", str(folder / "model")], library


def test_a_full_disk_under_the_weight_cache_is_a_warning_and_the_run_goes_on(wide, environment, tmp_path):
    arguments, library = wide
    options = ["--prompt", "The film", "--max_tokens_to_generate", "3"]
    own = subprocess.run([*BOSSA, *arguments, *options], capture_output=True, env=environment, check=True)
    full = subprocess.run(
        [*BOSSA, *arguments, *options],
        capture_output=True,
        env={**environment, "BOSSA_CACHE": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=limit_files(library + 4096),
        check=False,
    )
    assert (full.returncode, full.stdout) == (0, own.stdout), full.stderr
    warning, _summary = full.stderr.decode().splitlines()
    assert warning.startswith("bossa: warning: ")
    assert "BOSSA_CACHE" in warning
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("output", [[], ["--output", "/dev/full"], ["--output", "-"]], ids=["text", "file", "stdout"])
def test_a_full_disk_under_the_predictions_is_one_line(arguments, environment, many, output):
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*BOSSA, *arguments, "--data_dir", str(many), "--examples_to_generate", "2", *output],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            check=False,
        )
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("bossa: ")
    assert "No space left on device" in line


def test_a_reader_that_goes_away_ends_the_run_quietly(arguments, environment, many):
    process = subprocess.Popen(
        [*BOSSA, *arguments, "--data_dir", str(many), "--examples_to_generate", "all"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_run_imports_neither_torch_nor_what_only_compiling_needs(arguments, environment):
    code = (
        "import sys; from bossa.cli import main; code = main();"
        "print(code, [name for name in sys.modules if name in"
        " ('torch', 'transformers', 'gguf', 'huggingface_hub', 'jinja2', 'rich', 'bossa.passes', 'concurrent')])"
    )
    options = ["--prompt", "The film", "--max_tokens_to_generate", "1"]
    subprocess.run([*BOSSA, *arguments, *options], capture_output=True, env=environment, check=True)  # packs
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments, *options], capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout.splitlines()[-1] == "0 []", result.stdout


def test_the_program_may_come_from_a_pipe_of_records(arguments, environment):
    result = subprocess.run(
        [*BOSSA, *arguments, "--data_dir", "-", "--max_tokens_to_generate", "2", "--output", "-"],
        input='{"prompt": "The film"}\n{"prompt": "A"}\n',
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert [json.loads(line)["prompt"] for line in result.stdout.splitlines()] == ["The film", "A"]
