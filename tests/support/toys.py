"""A toy model that goes on with the alphabet, and a loader that gives it, in place of a compiled program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bossa.errors import RuntimeFailure
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


class OneStepAtATime:
    """What a program says of itself that decodes step by step, and finds likeliest tokens by its logits."""

    page_bytes = 1
    state_bytes = state_drafts = state_slots = 0
    adapter_hash = b""
    most_steps = 1

    def step_greedy(self, *arguments: Any) -> Any:
        logits = self.step(*arguments)  # type: ignore[attr-defined]
        best = logits.argmax(axis=1).astype(np.int32)
        if not np.isfinite(logits[np.arange(len(best)), best]).all():
            raise RuntimeFailure("not numbers")
        return best


class AlphabetProgram(OneStepAtATime):
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
        if self.model.engine.program.closed:
            self.use()
        self.model.follow_generation_config = options["generation_config"] == "model"
        return self.model
