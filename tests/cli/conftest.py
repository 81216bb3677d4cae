"""A command line to call in this process; a toy model in place of a compiled one; and a small one, really compiled."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bossa.cli import main
from support.toys import Loading, toy_model


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def bossa(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call the command line in this process."""

    def call(*arguments: str | Path) -> Result:
        code = main([str(argument) for argument in arguments])
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


def in_the_foreground() -> None:
    """For a child: signals do what they do to a command that a person starts, whoever started the tests."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a process in the foreground, unless another ``preexec_fn`` is given; it is ended with the test."""
    started = []

    def call(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        options = {"preexec_fn": in_the_foreground, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(command, **options)
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def toy() -> list[str]:
    """The command as a process of its own, with a toy model: ``toy.py``."""
    return [sys.executable, str(Path(__file__).parent / "toy.py"), "run", "--pef", "x.pef"]


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loading]:
    fake = Loading(toy_model())
    monkeypatch.setitem(sys.modules, "bossa.loading", fake)
    yield fake
    fake.model.close()


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for ``bossa.compiler``; what ``compile`` was called with is in ``model`` and ``options``."""
    fake = SimpleNamespace(model=None, options=None, error=None)

    def save(path: Path) -> None:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"a program")

    def compile_model(model: Any, *, progress: Callable[[str], None], **options: Any) -> Any:
        fake.model, fake.options = model, options
        progress("trace")
        if fake.error is not None:
            raise fake.error
        progress("build")
        return SimpleNamespace(save=save)

    fake.compile = compile_model
    monkeypatch.setitem(sys.modules, "bossa.compiler", fake)
    return fake


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers with random weights, 257 tokens, 128 positions, and a tokenizer whose tokens are bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-gpt2")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*alphabet, "<|endoftext|>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(5)
    ids = {"bos_token_id": 256, "eos_token_id": 256}
    config = GPT2Config(vocab_size=257, n_positions=128, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3, **ids)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pef(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of ``tiny_model``, for three sequences at once, without weights."""
    from bossa.compiler import compile as compile_model

    return compile_model(tiny_model, batch_size=3, name="tiny").save(tmp_path_factory.mktemp("tiny") / "tiny.pef")


@pytest.fixture(scope="session")
def weight_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of one process keep packed weights."""
    return tmp_path_factory.mktemp("cache")
