"""Signals: all that end a run end it alike, and what was to be ignored is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def run(toy, tmp_path, start):
    """A run of 200 records that takes long, started, with some of them done."""
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "abc"}\n' * 200)
    output = tmp_path / "out.jsonl"
    arguments = ["--data_dir", str(path), "--output", str(output), "--examples_to_generate", "all", "-b", "1"]

    def call(**options):
        process = start([*toy, *arguments], env={**os.environ, "TOY_STEP": "0.005"}, **options)
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up and written(tmp_path) < 2:
            time.sleep(0.01)
        return process

    return call


def written(folder: Path) -> int:
    return sum(part.read_bytes().count(b"\n") for part in folder.glob(".*.part"))


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (signal.SIGINT, "bossa: interrupted"),
        (signal.SIGTERM, "bossa: ended by SIGTERM"),
        (signal.SIGHUP, "bossa: ended by SIGHUP"),
    ],
)
def test_a_signal_keeps_what_is_finished(run, tmp_path, number, says):
    process = run()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + number, b""), err
    assert err.decode().splitlines()[-1] == says
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert 2 <= len(records) < 200
    assert all(record["completion"] for record in records)
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl"]


def ignoring() -> None:
    """For a child: as a shell's background job under nohup."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def test_what_was_ignored_at_the_start_stays_so_and_sigterm_ends_it(run, tmp_path):
    process = run(preexec_fn=ignoring)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGHUP)
    before = written(tmp_path)
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and written(tmp_path) < before + 2:
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) >= before + 2


def test_a_second_run_with_the_same_output_is_refused_and_the_first_unharmed(run, toy, tmp_path):
    process = run()
    again = subprocess.run(process.args, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == (
        f"bossa: another process is writing {tmp_path / 'out.jsonl'}:"
        " wait until it has ended, or give another --output\n"
    )
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert all(json.loads(line)["completion"] for line in (tmp_path / "out.jsonl").read_text().splitlines())


def test_a_signal_while_it_is_imported_is_one_line(start):
    """At every module of the command in turn, some of the time: no traceback, whatever was being imported."""
    code = (
        "import os, signal, sys\n"
        "place = int(sys.argv.pop(1))\n"
        "class Finder:\n"
        "    seen = 0\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        cls.seen += 1\n"
        "        if cls.seen == place: signal.raise_signal(int(sys.argv.pop(1)))\n"
        "from bossa.cli import main\n"
        "import bossa.host.signals\n"
        "sys.meta_path.insert(0, Finder)\n"
        "sys.exit(main())\n"
    )
    for place, number in ((1, signal.SIGINT), (5, signal.SIGTERM), (20, signal.SIGHUP), (40, signal.SIGINT)):
        command = [sys.executable, "-c", code, str(place), str(int(number)), "run", "--prompt", "x"]
        out, err = start(command).communicate(timeout=60)
        assert out == b""
        assert err.startswith(b"bossa: ")
        assert err.count(b"\n") == 1


def test_a_signal_while_a_program_is_compiled_leaves_no_folder_behind(start, tmp_path):
    code = (
        "import sys, tempfile, time, types\n"
        "def compile(*arguments, **options):\n"
        "    with tempfile.TemporaryDirectory():\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "sys.modules['bossa.compiler'] = types.SimpleNamespace(compile=compile)\n"
        "from bossa.cli import main\n"
        "sys.exit(main())\n"
    )
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    process = start([sys.executable, "-c", code, "compile", "x"], env=environment, cwd=tmp_path)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (143, b"", b"bossa: ended by SIGTERM\n")
    assert os.listdir(tmp_path / "tmp") == []
    assert os.listdir(tmp_path) == ["tmp"]
