"""The next token of a request: the likeliest or a draw, after its logits processors."""

from __future__ import annotations

import numpy as np
import pytest

from bossa.engine import Request, SamplingParams
from bossa.engine.sampler import sample
from bossa.errors import RuntimeFailure

V = 50


def logits(seed, count=1):
    return np.random.default_rng(seed).normal(0, 3, (count, V)).astype(np.float32)


def test_the_repetition_penalty_counts_in_greedy_decoding_too():
    row = np.array([2.0, 1.9, -1.0], np.float32)
    assert sample(row, Request(0, [0], SamplingParams(repetition_penalty=1.5))) == 1
    assert sample(row, Request(0, [2], SamplingParams(repetition_penalty=1.5))) == 0


def test_greedy_takes_the_lowest_of_equal_logits():
    row = np.zeros((2, V), np.float32)
    row[0, [7, 30]] = 1
    row[1, [49, 3]] = 2
    assert [sample(row[0], Request(0, [1])), sample(row[1], Request(1, [1]))] == [7, 3]


def test_a_temperature_near_zero_is_greedy():
    row = logits(5)[0]
    assert sample(row, Request(0, [1], SamplingParams(temperature=1e-300))) == row.argmax()


def test_tokens_ruled_out_by_the_program_are_never_drawn():
    row = np.full(V, -np.inf, np.float32)
    row[[4, 9]] = 0.5
    for few in (0, 10):
        params = SamplingParams(temperature=2.0, top_k=few)
        assert {sample(row, Request(i, [1], params)) for i in range(40)} == {4, 9}


def test_numpy_numbers_are_numbers():
    params = SamplingParams(max_new_tokens=np.int64(3), temperature=np.float32(0.5), seed=np.uint64(2**64 - 1))
    assert sample(logits(1)[0], Request(np.int64(1), np.array([1, 2]), params)) in range(V)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_everything_is_suppressed_a_line_says_so(temperature):
    params = SamplingParams(temperature=temperature, suppress_tokens=range(V))
    with pytest.raises(RuntimeFailure, match=r"^request 3 has no token that may come at position 2: what"):
        sample(logits(1)[0], Request(3, [1, 2], params))


def test_the_logits_of_a_step_stay_as_they_are():
    row = logits(2)[0]
    before = row.copy()
    sample(row, Request(0, [1], SamplingParams(repetition_penalty=2, suppress_tokens=[3], sequence_bias=[[[4], 2.0]])))
    assert np.array_equal(row, before)
