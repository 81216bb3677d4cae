"""A program and a tokenizer for the engine's tests, and an oracle that knows neither pages nor steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from types import SimpleNamespace

import numpy as np
import pytest

from bossa.errors import RuntimeFailure

VOCABULARY = 29
LETTERS = "abcdefghijklmnopqrstuvwxyz .é"
EOS = 3


def remember(state: int, token: int) -> int:
    """What stands for the keys and values of a position: it follows from the token and all before it."""
    return (state * 1_000_003 + token + 7) % (2**61 - 1)


def attend(states: Sequence[int], token: int, habit: float = 0.0) -> np.ndarray:
    """Logits [V] after a token, from what its position and all before it left behind, each with its place.

    With a habit, what follows a token is as a rule the same, so that it can be guessed.
    """
    mixed = sum(state * (2 * position + 1) for position, state in enumerate(states)) % (2**61 - 1)
    row = np.array([(mixed >> 7) * (2 * v + 3) % 1009 / 101 for v in range(VOCABULARY)], np.float32)
    row[(token * 5 + 2) % 7] += habit
    return row


def logits_of(tokens: Sequence[int], habit: float = 0.0) -> np.ndarray:
    """Logits [V] that follow from all tokens so far and their order."""
    return attend(list(accumulate(tokens, remember, initial=1))[1:], tokens[-1], habit)


def greedy(
    prompt: Sequence[int], max_new_tokens: int, max_seq_length: int, eos: Sequence[int] = (EOS,), habit=0.0
) -> list[int]:
    """What greedy decoding of ``logits_of`` gives."""
    tokens = list(prompt)
    while len(tokens) < min(len(prompt) + max_new_tokens, max_seq_length):
        tokens.append(int(np.argmax(logits_of(tokens, habit))))
        if tokens[-1] in eos:
            break
    return tokens[len(prompt) :]


class FakeProgram:
    """Keeps in each page what its positions left behind, and reads it back through the block table to make logits.

    What a position leaves behind follows from all tokens up to it, as keys and values do. So a wrong page, position,
    row range or token anywhere changes what comes out; what can be seen at once is asserted.
    """

    def __init__(
        self,
        pages: int = 64,
        page_size: int = 4,
        max_seq_length: int = 40,
        max_rows: int = 16,
        before_step: Callable[[int], None] | None = None,
        habit: float = 0.0,
    ) -> None:
        self.pages, self.page_size = pages, page_size
        self.max_seq_length, self.max_rows = max_seq_length, max_rows
        self.vocab_size = VOCABULARY
        self.habit = habit
        self.memory = np.full((pages, page_size), -1, np.int64)
        self.steps: list[list[int]] = []  # the rows of each sequence, step by step
        self.before_step = before_step
        self.greedy_steps = 0
        self.closed = False

    def step(self, tokens, positions, starts, block_tables, logit_rows):  # type: ignore[no-untyped-def]
        assert not self.closed
        if self.before_step is not None:
            self.before_step(len(self.steps))
        for array in (tokens, positions, starts, block_tables, logit_rows):
            assert array.dtype == np.int32
            assert array.flags.c_contiguous
        assert 1 <= len(tokens) == len(positions) <= self.max_rows
        assert starts[0] == 0
        assert starts[-1] == len(tokens)
        assert len(starts) == len(block_tables) + 1
        assert (np.diff(starts) > 0).all()
        assert (np.diff(logit_rows) > 0).all()
        read: list[set[int]] = []
        written: list[set[int]] = []
        for table, start, end in zip(block_tables, starts[:-1], starts[1:], strict=True):
            first, last = int(positions[start]), int(positions[end - 1])
            assert list(positions[start:end]) == list(range(first, last + 1))
            assert last < self.max_seq_length
            pages = [int(page) for page in table[: last // self.page_size + 1]]
            assert len(pages) == last // self.page_size + 1
            assert len(set(pages)) == len(pages)
            read.append(set(pages))
            written.append(set(pages[first // self.page_size :]))
        for pages_written in written:  # by one sequence, which nobody else reads in this step
            assert sum(not pages_written.isdisjoint(pages) for pages in read) == 1
        self.steps.append([int(rows) for rows in np.diff(starts)])
        logits = np.empty((len(logit_rows), VOCABULARY), np.float32)
        wanted = {int(row): out for row, out in zip(logit_rows, logits, strict=True)}
        for table, start, end in zip(block_tables, starts[:-1], starts[1:], strict=True):
            for row in range(start, end):
                position, token = int(positions[row]), int(tokens[row])
                before = self._states(table, position)
                state = remember(before[-1] if before else 1, token)
                self.memory[table[position // self.page_size], position % self.page_size] = state
                if row in wanted:
                    wanted[row][:] = attend([*before, state], token, self.habit)
        return logits

    def step_greedy(self, *arguments):  # type: ignore[no-untyped-def]
        self.greedy_steps += 1
        logits = self.step(*arguments)
        if np.isnan(logits).any():
            raise RuntimeFailure("not numbers")
        return logits.argmax(axis=1).astype(np.int32)

    def _states(self, table: np.ndarray, count: int) -> list[int]:
        """What the first positions of a sequence left behind."""
        return self.memory[table[: -(-count // self.page_size)]].reshape(-1)[:count].tolist()

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class AheadProgram(FakeProgram):
    """One that runs steps of decoding one after the other, as compiled programs do."""

    def __init__(self, *arguments, **keywords):  # type: ignore[no-untyped-def]
        super().__init__(*arguments, **keywords)
        self.decodings: list[int] = []  # the most steps that each call might run

    def decode_greedy(self, tokens, positions, block_tables, most_steps, ends):  # type: ignore[no-untyped-def]
        """Up to a step that ends something; every third time fewer, as if time were over."""
        rows = np.arange(len(tokens) + 1, dtype=np.int32)
        self.decodings.append(most_steps)
        found = []
        while len(found) < (most_steps if len(self.decodings) % 3 else (most_steps + 1) // 2):
            try:
                best = self.step_greedy(tokens, positions, rows, block_tables, rows[:-1])
            except RuntimeFailure:
                if not found:
                    raise
                break
            found.append(best)
            if any(token in ends for token in best):
                break
            tokens, positions = best, positions + np.int32(1)
        return np.array(found)


class FakeTokenizer:
    """A token is a letter, but the last one, which takes two: as a character split between tokens does."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = [0] if add_special_tokens else []
        for letter in text:
            ids += [28, 28] if letter == "é" else [LETTERS.index(letter)]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text = "".join("\ufffd" if token == 28 else LETTERS[token] for token in ids)
        return text.replace("\ufffd\ufffd", "é")


class FakeDetokenizer:
    def __init__(self, tokenizer: FakeTokenizer, prompt: Sequence[int]) -> None:
        self.tokenizer, self.ids = tokenizer, list(prompt)
        self.given = len(tokenizer.decode(prompt).rstrip("\ufffd"))

    def add(self, token_id: int) -> str:
        self.ids.append(token_id)
        return "" if self.tokenizer.decode(self.ids).endswith("\ufffd") else self.finish()

    def finish(self) -> str:
        text = self.tokenizer.decode(self.ids)
        given, self.given = self.given, len(text)
        return text[given:]


@pytest.fixture(scope="session")
def fake() -> SimpleNamespace:
    return SimpleNamespace(
        Program=FakeProgram,
        AheadProgram=AheadProgram,
        Tokenizer=FakeTokenizer,
        Detokenizer=FakeDetokenizer,
        greedy=greedy,
        logits_of=logits_of,
        EOS=EOS,
        VOCABULARY=VOCABULARY,
    )
