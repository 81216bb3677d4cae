"""A command line to call in this process, and a toy model in place of a compiled one."""

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

    def compile_model(model: Any, *, progress: Callable[[str], None], **options: Any) -> Any:
        fake.model, fake.options = model, options
        progress("trace")
        if fake.error is not None:
            raise fake.error
        progress("build")
        return SimpleNamespace(save=lambda path: Path(path).write_bytes(b"a program"))

    fake.compile = compile_model
    monkeypatch.setitem(sys.modules, "bossa.compiler", fake)
    return fake
