"""A command line to call in this process; a toy model in place of a compiled one; and a small one, really compiled."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bossa.cli import main
from bossa.language_model import LanguageModel

EOS = 0
LETTERS = "\0abcdefghijklmnopqrstuvwxyz "


class LetterTokenizer:
    """A token a letter; token 0 ends a text and is written ``<end>``."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [LETTERS.index(letter) for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join("<end>" if token == EOS else LETTERS[token] for token in ids)

    def chat(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return " ".join(["ask", *(message["content"] for message in messages), "say "])


class Detokenizer:
    def __init__(self, tokenizer: LetterTokenizer, prompt: Sequence[int]) -> None:
        self.tokenizer = tokenizer

    def add(self, token_id: int) -> str:
        return self.tokenizer.decode([token_id])

    def finish(self) -> str:
        return ""


class AlphabetProgram:
    """After a letter comes the next one, and after z the end."""

    page_size = 4
    pages = 64
    vocab_size = len(LETTERS)
    max_seq_length = 32
    max_rows = 16

    def __init__(self, before_step: Callable[[int], None] = lambda step: None) -> None:
        self.steps = 0
        self.closed = False
        self.before_step = before_step

    def step(self, tokens: Any, positions: Any, starts: Any, block_tables: Any, logit_rows: Any) -> Any:
        self.before_step(self.steps)
        self.steps += 1
        following = (tokens[logit_rows] + 1) % 27
        return np.eye(self.vocab_size, dtype=np.float32)[following]

    def close(self) -> None:
        self.closed = True


def toy_model(batch_size: int = 2, **program: Any) -> LanguageModel:
    return LanguageModel(
        AlphabetProgram(**program),
        LetterTokenizer(),
        eos_token_ids=[EOS],
        batch_size=batch_size,
        detokenizer=Detokenizer,
    )


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


@dataclass
class Loading:
    """A stand-in for ``bossa.loading``: what ``load`` was called with, and what it gives."""

    model: LanguageModel
    pef: Any = None
    options: Any = None

    def use(self, **options: Any) -> None:
        """Give another toy model instead."""
        self.model = toy_model(**options)

    def load(self, pef: Any, **options: Any) -> LanguageModel:
        self.pef, self.options = pef, options
        return self.model


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
