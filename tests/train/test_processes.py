"""Runs in processes of their own: two that train together, one that is killed, and a command as users start it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bossa.train.log import read_log
from support.training import save_model, write_data

STEPS = 12
ARGUMENTS = [
    "--lora-rank", "2", "--steps", str(STEPS), "-b", "4", "--eval_steps", "5", "--save_steps", "2", "--bf16", "off",
    "--threads", "1", "--learning_rate", "0.01", "--lora-dropout", "0.1",
]  # fmt: skip


def command(folder: Path, output: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "bossa", "train", str(folder / "model"), "--data_dir", str(folder / "data")]
    return [*start, "--output", str(output), *ARGUMENTS, *more]


def curve(folder: Path, *names: str) -> list[Any]:
    wanted = names or ("loss", "eval_loss", "exact_match", "grad_norm")
    return [[entry["step"], *(entry.get(name) for name in wanted)] for entry in read_log(folder)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    save_model(folder / "model")
    write_data(folder / "data")
    return folder


@pytest.fixture(scope="module")
def whole(made: Path) -> Path:
    """A run without a break."""
    done = subprocess.run(command(made, made / "whole"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{made / 'whole' / 'best'}\n"
    assert "packed" in done.stderr
    return made / "whole"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_run_that_is_killed_again_and_again_has_the_curve_of_one_that_is_not(
    seed: int, made: Path, whole: Path, tmp_path: Path
):
    chance = random.Random(seed)
    deaths = 0
    while True:
        begun = len(read_log(tmp_path))
        process = subprocess.Popen(command(made, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wanted = chance.randrange(1, 6)
        while process.poll() is None and (deaths > 4 or len(read_log(tmp_path)) < begun + wanted):
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            deaths += 1
        _, told = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, told
    assert deaths
    assert curve(tmp_path) == curve(whole)
    weights = [(folder / "last" / "adapter_model.safetensors").read_bytes() for folder in (tmp_path, whole)]
    assert weights[0] == weights[1]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def together(made: Path, output: Path, count: int = 2) -> list[subprocess.Popen[str]]:
    """The processes as torchrun would start them."""
    port = str(free_port())
    return [
        subprocess.Popen(
            command(made, output, "--lora-dropout", "0"),
            env=os.environ
            | {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
            | {"MASTER_PORT": port},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_train_as_one_does_and_go_on_when_one_was_lost(made: Path, tmp_path: Path):
    alone = subprocess.run(
        command(made, tmp_path / "alone", "--lora-dropout", "0"), capture_output=True, text=True, check=False
    )
    assert alone.returncode == 0, alone.stderr
    first, second = together(made, tmp_path / "both")
    while first.poll() is None and len(read_log(tmp_path / "both")) < 4:
        time.sleep(0.005)
    second.kill()
    second.communicate()
    _, told = first.communicate()
    assert first.returncode == 2
    assert told.splitlines()[-1].startswith("bossa: process 0 of 2 lost another one: start the run again")
    for process in together(made, tmp_path / "both"):
        _, told = process.communicate()
        assert process.returncode == 0, told
    for names in (("loss",), ("eval_loss",), ("exact_match",)):
        one, two = curve(tmp_path / "alone", *names), curve(tmp_path / "both", *names)
        assert [entry[0] for entry in one] == [entry[0] for entry in two]
        for (_, expected), (_, found) in zip(one, two, strict=True):
            assert found == (None if expected is None else pytest.approx(expected, abs=1e-5))
