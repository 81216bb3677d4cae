"""The command in a pipeline of real processes: readers that go away, disks that are full."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bossa.cli
from support.terminal import read_all

BOSSA = [sys.executable, "-m", "bossa"]
RUN = ["--prompt", "abc", "--max_tokens_to_generate", "3"]


def closing(*numbers: int):
    """For a child: start with these streams closed, as `2>&-` does."""

    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


def test_a_closed_or_full_place_for_messages_stops_no_work(toy):
    for options in (
        {"preexec_fn": closing(2), "close_fds": False},
        {"stderr": open("/dev/full", "w")},  # noqa: SIM115 - closed with the test
        {"preexec_fn": closing(0, 2), "close_fds": False},
    ):
        result = subprocess.run([*toy, *RUN], stdout=subprocess.PIPE, check=False, **options)
        assert (result.returncode, result.stdout) == (0, b"def\n")


def test_an_error_has_its_exit_code_where_it_cannot_be_written(toy):
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*toy, "--prompt", "x", "--data_dir", "y"], stdout=subprocess.PIPE, stderr=full, check=False
        )
    assert (result.returncode, result.stdout) == (2, b"")


@pytest.mark.parametrize(
    ("arguments", "closed", "name"),
    [
        (RUN, 1, "output"),
        (["--data_dir", "-", "--output", "out.jsonl"], 0, "input"),
        (["--data_dir", "/dev/stdin", "--output", "out.jsonl"], 0, "input"),
        (["--data_dir", "in.jsonl"], 1, "output"),
        (["--data_dir", "in.jsonl", "--output", "-"], 1, "output"),
        (["--data_dir", "in.jsonl", "--output", "/dev/stdout"], 1, "output"),
        (["--help"], 1, "output"),
    ],
)
def test_a_stream_that_is_needed_and_closed_is_one_line_before_the_work(toy, tmp_path, arguments, closed, name):
    (tmp_path / "in.jsonl").write_text('{"prompt": "abc"}\n')
    result = subprocess.run(
        [*toy, *arguments], preexec_fn=closing(closed), stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 2
    assert result.stderr == f"bossa: standard {name} is closed, and is needed: start bossa with it open\n"
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_what_is_not_needed_may_be_closed(toy, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "abc"}\n')
    output = tmp_path / "out.jsonl"
    arguments = ["--data_dir", str(path), "--output", str(output), "--max_tokens_to_generate", "3"]
    assert subprocess.run([*toy, *arguments], preexec_fn=closing(0, 1, 2), check=False).returncode == 0
    assert json.loads(output.read_text())["completion"] == "def"
    assert len(output.read_text().splitlines()) == 1


LOCALES = [
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize("locale", LOCALES)
def test_text_goes_in_and_out_as_utf8_in_every_locale(toy, tmp_path, locale):
    environment = {**os.environ, **locale}
    says = ["--stop", "é", "--data_dir", "né.jsonl"]
    result = subprocess.run([*toy, *says], capture_output=True, env=environment, cwd=tmp_path, check=False)
    assert (result.returncode, result.stderr.decode()) == (2, "bossa: no such file or directory: né.jsonl\n")
    (tmp_path / "né.jsonl").write_text('{"prompt": "abc"}\nno json\n', encoding="utf-8")
    result = subprocess.run([*toy, *says], capture_output=True, env=environment, cwd=tmp_path, check=False)
    assert result.returncode == 3
    assert "bossa: né.jsonl, line 2: not JSON" in result.stderr.decode()
    code = (
        "import sys; from bossa.cli.options import Text; from bossa.host import streams\n"
        "with streams.ready(): print(Text().convert(sys.argv[1], None, None))"
    )
    result = subprocess.run([sys.executable, "-c", code, "né €"], capture_output=True, env=environment, check=True)
    assert result.stdout == "né €\n".encode()


def test_a_prompt_that_is_not_utf8_is_one_line(toy):
    result = subprocess.run([*toy, "--prompt", b"n\xff"], capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"'--prompt': it is not UTF-8: byte 2 is 0xff" in result.stderr
    assert result.stderr.count(b"\n") == 1


EVIL = "\x1b]0;owned\x07\x1b[2J\u202e\r"


def test_nothing_from_outside_acts_on_a_terminal(toy, tmp_path, start):
    """In errors of records, of usage and of files, on a terminal and elsewhere."""
    path = tmp_path / f"a{EVIL}.jsonl"
    path.write_text('{"prompt": "abc"}\nno json\n')
    for arguments in (["--data_dir", str(path)], ["--data_dir", f"none{EVIL}"], [f"--{EVIL}"], ["--truncation", EVIL]):
        leader, follower = os.openpty()
        process = start([*toy, *arguments], stdout=follower, stderr=follower, stdin=subprocess.DEVNULL)
        os.close(follower)
        shown = read_all(leader)
        assert process.wait(20) in (2, 3)
        assert "\\x1b]0;owned\\x07" in shown
        for letter in ("\x1b]", "\x07", "\x1b[2J", "\u202e"):
            assert letter not in shown


COMMANDS = sorted(Path(bossa.cli.__file__).parent.glob("*.py"))
WRITES = {"print", "echo", "secho", "write", "print_exc", "writelines"}


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_no_command_writes_around_the_one_module_that_escapes(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    names = [(getattr(call.func, "id", None) or getattr(call.func, "attr", None), call) for call in calls]
    found = [ast.unparse(call) for name, call in names if name in WRITES]
    if path.name == "text.py":
        assert len(found) == 3
    else:
        assert [call for call in found if not call.startswith("file.write(")] == []


def test_a_reader_that_goes_away_ends_it_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        result = subprocess.run([*BOSSA, "run", "--help"], stdout=stdout, stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (141, b"")


def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        result = subprocess.run([*BOSSA, "run", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "bossa: No space left on device\n")


def test_packing_is_shown_on_a_terminal_and_cleared(monkeypatch, capfd):
    from bossa.cli.progress import Packing

    with Packing() as packing:
        packing(50, 100)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Packing() as packing:
        for done in (10, 10, 55):
            packing(done, 100)
    assert capfd.readouterr().err == "".join(
        f"\r\x1b[2K{text}" for text in ("packing weights: 10 %", "packing weights: 55 %", "")
    )
