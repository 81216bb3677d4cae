"""What the engine asks of those below it: a native program that runs steps, and a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bossa.runtime.states import SequenceStates

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class ModelRunner(Protocol):
    """A loaded program with its weights, KV pages and recurrent state.

    Attributes:
        page_size: positions that a KV page holds.
        page_bytes: of a KV page; 0 where nothing is kept of single positions.
        pages: KV pages, with ids from 0.
        state_bytes: of recurrent state of a sequence; 0 where there is none, and then the next two are too, and no step
            is told of any.
        state_drafts: guesses of a sequence that this has room for in a step.
        state_slots: places for it, with ids from 0.
        vocab_size: V, the width of the logits.
        max_seq_length: positions that one sequence may have.
        max_rows: rows that one step may have.
        adapter_hash: what stands for its adapter, by which all that it computes differs; empty where it has none.
        most_steps: steps of decoding that may run one after the other; 1 where that gains nothing.
    """

    page_size: int
    page_bytes: int
    pages: int
    state_bytes: int
    state_drafts: int
    state_slots: int
    vocab_size: int
    max_seq_length: int
    max_rows: int
    adapter_hash: bytes
    most_steps: int

    def step(
        self,
        tokens: Ints,
        positions: Ints,
        starts: Ints,
        block_tables: Ints,
        logit_rows: Ints,
        states: SequenceStates | None = None,
    ) -> Floats:
        """Run T packed rows of S sequences.

        Args:
            tokens: [T] token ids; the rows of a sequence lie together, at consecutive positions.
            positions: [T] the position of each row in its sequence.
            starts: [S + 1] the first row of each sequence, and T.
            block_tables: [S, B] page ids; page p of a sequence holds its positions p * page_size onwards. Several
                sequences may read a page; one that is written in this step is in the table of its writer alone.
            logit_rows: [n] the rows whose logits are wanted, ascending.
            states: where the recurrent state of each sequence is, in a slot of its own: in it its last step, or a copy,
                has left the state after the position before its first row. Where that row is at position 0, nothing.

        Returns:
            [n, V] logits, good until the next step.
        """

    def step_greedy(
        self,
        tokens: Ints,
        positions: Ints,
        starts: Ints,
        block_tables: Ints,
        logit_rows: Ints,
        states: SequenceStates | None = None,
    ) -> Ints:
        """Run a step, and give the likeliest token of each row in ``logit_rows`` alone: of equals, the lowest id.

        Returns:
            [n] token ids.

        Raises:
            RuntimeFailure: the logits of one of these rows hold NaN. Recurrent state has moved all the same.
        """

    def decode_greedy(
        self,
        tokens: Ints,
        positions: Ints,
        block_tables: Ints,
        most_steps: int,
        ends: Sequence[int],
        states: SequenceStates | None = None,
    ) -> Ints:
        """Run steps of one row of each sequence one after the other, each with the tokens that the one before found.

        Args:
            tokens: [S] of the first step.
            positions: [S] of the first step.
            block_tables: [S, B] page ids, those of all steps.
            most_steps: how many steps may run.
            ends: no step runs after one that finds one of these token ids.
            states: those of the first step, without guesses.

        Returns:
            [n, S] token ids of the n steps that ran, at least one.

        Raises:
            RuntimeFailure: the logits of the first step hold NaN; with recurrent state, those of any step.
        """

    def copy_state(self, source: int, target: int) -> None:
        """Copy the recurrent state in one slot into another."""

    def close(self) -> None:
        """Free the program, its weights and its KV pages."""


class Tokenizer(Protocol):
    """Text to token ids and back."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class Detokenizer(Protocol):
    """The text that follows a prompt, one token at a time; what the next token may change is held back."""

    def add(self, token_id: int) -> str: ...

    def finish(self) -> str: ...


MakeDetokenizer = Callable[[Any, Sequence[int]], Detokenizer]
"""From a tokenizer and the prompt's token ids."""
