"""What is timed: prompts to their first token, and steps in which every sequence decodes."""

from __future__ import annotations

import numpy as np
import pytest

from bossa.bench import rates
from bossa.bench.rates import decode_rates, prefill_rates
from bossa.engine.engine import Engine
from bossa.errors import RequestError
from support.toys import OneStepAtATime


class CountingProgram(OneStepAtATime):
    """Gives logits of nothing, and remembers how many rows each step had."""

    page_size = 4
    vocab_size = 50_000  # so many that no two random prompts begin alike

    def __init__(self, pages: int = 200, max_seq_length: int = 64, max_rows: int = 16) -> None:
        self.pages, self.max_seq_length, self.max_rows = pages, max_seq_length, max_rows
        self.rows: list[int] = []

    def step(self, tokens, positions, starts, block_tables, logit_rows):
        self.rows.append(len(tokens))
        return np.zeros((len(logit_rows), self.vocab_size), np.float32)

    def close(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes by one second each time it is read."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(rates.time, "perf_counter", lambda: float(next(ticks)))


def test_prefill_runs_a_prompt_to_its_first_token(clock):
    program = CountingProgram()
    measured = prefill_rates(Engine(program, batch_size=1), 20, repeat=3, seconds=100)
    assert measured == (20.0, 20.0, 20.0)
    assert program.rows == [16, 4] * 4  # one more than is counted, to warm up


def test_nothing_of_an_earlier_measurement_is_shared(clock):
    program = CountingProgram()
    engine = Engine(program, batch_size=1)
    for _ in range(3):
        program.rows.clear()
        prefill_rates(engine, 20, repeat=1, seconds=100)
        assert program.rows == [16, 4] * 2


def test_decoding_is_timed_once_every_sequence_has_its_first_token(clock):
    program = CountingProgram()
    measured, context = decode_rates(Engine(program, batch_size=4), 4, 10, steps=8, repeat=2, seconds=100)
    assert measured == (32.0, 32.0)
    assert program.rows[-8:] == [4] * 8
    assert context >= 10 + 8 // 2


def test_few_measurements_are_made_when_they_take_long(clock):
    measured = prefill_rates(Engine(CountingProgram(), batch_size=1), 8, repeat=50, seconds=0)
    assert len(measured) == rates.FEWEST


@pytest.mark.parametrize(
    ("program", "context"), [(CountingProgram(pages=8), 10), (CountingProgram(max_seq_length=16), 10)]
)
def test_a_batch_that_does_not_fit_is_refused_and_not_timed_in_turns(program, context):
    with pytest.raises(RequestError, match="side by side"):
        decode_rates(Engine(program, batch_size=4), 4, context, steps=8, repeat=2, seconds=1)


def test_a_batch_larger_than_was_loaded_for_is_refused():
    with pytest.raises(RequestError, match="more than the 2 sequences"):
        decode_rates(Engine(CountingProgram(), batch_size=2), 4, 8, steps=2, repeat=2, seconds=1)
