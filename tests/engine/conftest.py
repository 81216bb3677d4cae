"""A program and a tokenizer for the engine's tests, and an oracle that knows neither pages nor steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from bossa.errors import RuntimeFailure
from support.toys import OneStepAtATime

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


FACTOR, ADDEND, MODULUS = np.array([(1021, 1999, 757), (7, 3, 5), (4093, 4091, 4079)], np.float32)
"""For each number of recurrent state. Every product is one that float32 holds."""


def move(lanes: NDArray[np.float32], token: int) -> NDArray[np.float32]:
    """The recurrent state [3] after one token more."""
    return (lanes * FACTOR + np.float32(token) + ADDEND) % MODULUS


def recall(lanes: NDArray[np.float32], token: int, habit: float = 0.0) -> np.ndarray:
    """Logits [V] after a token, from recurrent state that it has moved."""
    one, two, three = lanes.astype(np.int64).tolist()
    row = np.array([(one * (v + 3) + two * (2 * v + 1) + three) % 1009 / 101 for v in range(VOCABULARY)], np.float32)
    row[(token * 5 + 2) % 7] += habit
    return row


def recalled(tokens: Sequence[int], habit: float = 0.0) -> np.ndarray:
    """``logits_of`` of a program that keeps recurrent state alone."""
    lanes = np.zeros(3, np.float32)
    for token in tokens:
        lanes = move(lanes, token)
    return recall(lanes, tokens[-1], habit)


def both(tokens: Sequence[int], habit: float = 0.0) -> np.ndarray:
    """``logits_of`` of a program that keeps both."""
    return (logits_of(tokens, 2 * habit) + recalled(tokens)) / 2


def greedy_of(logits: Callable[[Sequence[int], float], np.ndarray]) -> Callable[..., list[int]]:
    """Greedy decoding of logits that follow from all tokens so far."""

    def greedy(
        prompt: Sequence[int], max_new_tokens: int, max_seq_length: int, eos: Sequence[int] = (EOS,), habit=0.0
    ) -> list[int]:
        tokens = list(prompt)
        while len(tokens) < min(len(prompt) + max_new_tokens, max_seq_length):
            tokens.append(int(np.argmax(logits(tokens, habit))))
            if tokens[-1] in eos:
                break
        return tokens[len(prompt) :]

    return greedy


class FakeProgram(OneStepAtATime):
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
        state_slots: int = 0,
    ) -> None:
        self.page_bytes = 8 * page_size
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
        return super().step_greedy(*arguments)

    def _states(self, table: np.ndarray, count: int) -> list[int]:
        """What the first positions of a sequence left behind."""
        return self.memory[table[: -(-count // self.page_size)]].reshape(-1)[:count].tolist()

    def spoil(self) -> None:
        """Destroy everything that was kept."""
        self.memory[:] = 123_456

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class AheadProgram(FakeProgram):
    """One that runs steps of decoding one after the other, as compiled programs do."""

    most_steps = 16

    def __init__(self, *arguments, **keywords):  # type: ignore[no-untyped-def]
        super().__init__(*arguments, **keywords)
        self.decodings: list[int] = []  # the most steps that each call might run

    def decode_greedy(self, tokens, positions, block_tables, most_steps, ends, *states):  # type: ignore[no-untyped-def]
        """Up to a step that ends something; every third time fewer, as if time were over."""
        rows = np.arange(len(tokens) + 1, dtype=np.int32)
        self.decodings.append(most_steps)
        found = []
        while len(found) < (most_steps if len(self.decodings) % 3 else (most_steps + 1) // 2):
            try:
                best = self.step_greedy(tokens, positions, rows, block_tables, rows[:-1], *states)
            except RuntimeFailure:
                if not found or states:
                    raise
                break
            found.append(best)
            if any(token in ends for token in best):
                break
            tokens, positions = best, positions + np.int32(1)
            states = [state._replace(replays=0 * state.replays) for state in states]
        return np.array(found)


class Recurrent:
    """A program that keeps recurrent state, in its slots and nowhere else, as compiled programs do to the letter.

    A slot has the state, how many tokens it has seen, and the guesses that it keeps. Whatever the interface forbids is
    asserted: to go on from a state that has seen other tokens than those before the first row, to replay more than is
    kept, to let two sequences have a slot.
    """

    paged: bool  # whether it has pages beside

    def __init__(self, *arguments, habit: float = 0.0, state_slots: int = 8, **keywords):  # type: ignore[no-untyped-def]
        super().__init__(*arguments, habit=2 * habit, **keywords)
        self.recall_habit = 0.0 if self.paged else habit
        self.page_bytes *= self.paged
        self.state_bytes, self.state_drafts, self.state_slots = 64, 5, state_slots
        self.states = np.full((state_slots, 16), np.nan, np.float32)
        self.during_step: Callable[[int], None] | None = None  # called when a part of the state has been moved
        self.copies: list[tuple[int, int]] = []
        self.replayed = 0

    def step(self, tokens, positions, starts, block_tables, logit_rows, states):  # type: ignore[no-untyped-def]
        for array in states:
            assert array.dtype == np.int32
            assert array.shape == (len(block_tables),)
        assert len(set(states.slots.tolist())) == len(states.slots)
        assert 0 <= states.slots.min() <= states.slots.max() < self.state_slots
        number = len(self.steps)
        logits = super().step(tokens, positions, starts, block_tables, logit_rows)
        place = {int(row): place for place, row in enumerate(logit_rows)}
        for start, end, slot, replays, drafts in zip(starts[:-1], starts[1:], *states, strict=True):
            kept = self.states[slot]
            lanes = self._start(kept, int(positions[start]), int(replays))
            assert 0 <= drafts <= self.state_drafts
            assert drafts < end - start
            for row in range(start, end):
                if row == end - drafts:
                    self._commit(kept, lanes, int(positions[row]))
                lanes = move(lanes, int(tokens[row]))
                if row in place:
                    recalls = recall(lanes, int(tokens[row]), self.recall_habit)
                    logits[place[row]] = (logits[place[row]] + recalls) / 2 if self.paged else recalls
            if not drafts:
                self._commit(kept, lanes, int(positions[end - 1]) + 1)
            kept[4] = drafts
            kept[5 : 5 + drafts] = tokens[end - drafts : end]
            if self.during_step is not None:
                self.during_step(number)
        return logits

    def _start(self, kept: NDArray[np.float32], position: int, replays: int) -> NDArray[np.float32]:
        if position == 0:
            return np.zeros(3, np.float32)
        assert 0 <= replays <= kept[4]
        assert kept[3] + replays == position
        self.replayed += replays
        lanes = kept[:3]
        for token in kept[5 : 5 + replays]:
            lanes = move(lanes, int(token))
        return lanes

    def _commit(self, kept: NDArray[np.float32], lanes: NDArray[np.float32], seen: int) -> None:
        kept[:3], kept[3] = lanes, seen

    def copy_state(self, source: int, target: int) -> None:
        assert source != target
        self.copies.append((source, target))
        self.states[target] = self.states[source]

    def spoil(self) -> None:
        super().spoil()  # type: ignore[misc]
        self.states[:] = np.nan


class RecurrentProgram(Recurrent, FakeProgram):
    paged = False


class RecurrentAheadProgram(Recurrent, AheadProgram):
    paged = False


class HybridProgram(Recurrent, FakeProgram):
    paged = True


class HybridAheadProgram(Recurrent, AheadProgram):
    paged = True


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

    @property
    def id_limit(self) -> int:
        return len(LETTERS)

    def to_json(self) -> str:
        return "{}"

    def token_texts(self) -> tuple[list[str], list[int]]:
        return ["" if token == "é" else token for token in LETTERS], []


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


KINDS = {
    "pages": (FakeProgram, AheadProgram, logits_of),
    "state": (RecurrentProgram, RecurrentAheadProgram, recalled),
    "both": (HybridProgram, HybridAheadProgram, both),
}
"""Programs by what they keep of a sequence."""


def kind_of(name: str) -> SimpleNamespace:
    program, ahead, logits = KINDS[name]
    return SimpleNamespace(
        name=name,
        Program=program,
        AheadProgram=ahead,
        Tokenizer=FakeTokenizer,
        Detokenizer=FakeDetokenizer,
        greedy=greedy_of(logits),
        logits_of=logits,
        EOS=EOS,
        VOCABULARY=VOCABULARY,
    )


@pytest.fixture(scope="session")
def fake() -> SimpleNamespace:
    """A program that keeps pages alone."""
    return kind_of("pages")


@pytest.fixture(scope="session", params=list(KINDS))
def each(request: pytest.FixtureRequest) -> SimpleNamespace:
    """A program of each kind in turn."""
    return kind_of(request.param)


@pytest.fixture(scope="session", params=["state", "both"])
def recurrent(request: pytest.FixtureRequest) -> SimpleNamespace:
    """A program that keeps recurrent state, with pages beside it and without."""
    return kind_of(request.param)
