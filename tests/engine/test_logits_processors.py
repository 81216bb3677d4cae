"""Logits processors of a caller's: what they are given, where they stand, and whom it concerns if they are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from bossa.engine import Engine, Request, SamplingParams
from bossa.errors import RequestError
from bossa.language_model import LanguageModel

PROMPT = [1, 2, 5]
V = 29


@pytest.fixture
def model(fake):
    return LanguageModel(
        fake.AheadProgram(), fake.Tokenizer(), eos_token_ids=[3], batch_size=3, detokenizer=fake.Detokenizer
    )


def even(tokens, row):
    """No odd tokens, nor the last one again: it depends on both arguments."""
    row[1::2] = -np.inf
    row[tokens[-1]] -= 100
    return row


def expected(fake, prompt, count, habit=0.0):
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(even(tokens, np.array(fake.logits_of(tokens, habit))).argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("speculate", [0, 4])
def test_each_token_is_chosen_after_it_from_the_tokens_so_far(fake, speculate):
    engine = Engine(fake.AheadProgram(habit=11.0), batch_size=2)
    params = SamplingParams(20, logits_processors=(even,), speculate=speculate)
    requests = [Request(0, PROMPT, params), Request(1, [4], SamplingParams(20))]
    found = {each.index: each.token_ids for each in engine.generate(requests)}
    assert found == {0: expected(fake, PROMPT, 20, 11.0), 1: fake.greedy([4], 20, 40, eos=(), habit=11.0)}


def test_without_one_nothing_changes_and_with_one_steps_have_logits(fake):
    for params, plain in (
        (SamplingParams(8), True),
        (SamplingParams(8, logits_processors=(lambda _, row: row,)), False),
    ):
        program = fake.AheadProgram()
        [completion] = Engine(program, batch_size=1).generate([Request(0, PROMPT, params)])
        assert completion.token_ids == fake.greedy(PROMPT, 8, 40, eos=())
        assert bool(program.greedy_steps) is bool(program.decodings) is plain


def test_they_are_called_in_order_after_the_masks_and_before_temperature_and_filters(model):
    seen = []

    def first(tokens, row):
        seen.append((list(tokens), row.dtype, np.flatnonzero(row == -np.inf).tolist()))
        row[:] = 0
        row[[6, 7, 8, 9]] = [40, 40, 40, 39]
        return row

    def second(tokens, row):
        assert list(row[6:10]) == [40, 40, 40, 39]
        row[7] = -np.inf
        return row

    [completion] = model.generate(
        [PROMPT],
        max_new_tokens=30,
        suppress_tokens=[10, 11],
        temperature=9.0,
        top_k=2,
        logits_processors=[first, second],
    )
    assert set(completion.token_ids) == {6, 8}  # not 9, since top_k counts after them
    assert seen[0] == (PROMPT, np.float32, [10, 11])
    assert [tokens for tokens, _, _ in seen] == [[*PROMPT, *completion.token_ids[:n]] for n in range(30)]


def test_streams_samples_and_log_probabilities_go_with_them(fake, model):
    [plain] = model.generate(["abc"], max_new_tokens=12, logits_processors=[even], logprobs=1)
    assert "".join(model.stream("abc", max_new_tokens=12, logits_processors=[even])) == plain.text
    tokens = list(plain.prompt_token_ids)
    for token, logprob in zip(plain.token_ids, plain.logprobs, strict=True):
        row = np.array(fake.logits_of(tokens), np.float64)
        raw = row - np.log(np.exp(row).sum())  # as the model has it, whatever the processor made of it
        assert logprob.logprob == pytest.approx(raw[token], rel=1e-12)
        assert logprob.top[0][0] == row.argmax()
        tokens.append(token)
    samples = model.generate(["abc"], n=3, temperature=1.5, seed=4, max_new_tokens=9, logits_processors=[even])
    assert all(token % 2 == 0 for each in samples for token in each.token_ids)
    assert len({tuple(each.token_ids) for each in samples}) == 3
    assert (
        samples[0].token_ids
        == model.generate(["abc"], temperature=1.5, seed=4, max_new_tokens=9, logits_processors=[even])[0].token_ids
    )


def test_what_it_does_to_its_arguments_is_its_own_affair(fake, model):
    def careless(tokens, row):
        tokens.clear()
        found = row.copy()
        row[:] = np.nan
        return found

    [completion] = model.generate([PROMPT], max_new_tokens=6, logits_processors=[careless], ignore_eos=True)
    assert completion.token_ids == fake.greedy(PROMPT, 6, 40, eos=())


def test_what_it_gives_stays_as_it_is(model):
    constant = np.arange(V, dtype=np.float32)
    constant.flags.writeable = False

    def spoils(tokens, row):
        row[:] = 0
        row[5] = 1
        return row

    [completion] = model.generate([PROMPT], max_new_tokens=3, logits_processors=[lambda *_: constant, spoils])
    assert completion.token_ids == [5, 5, 5]


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_any_floats_will_do(fake, model, kind):
    [completion] = model.generate([PROMPT], max_new_tokens=4, logits_processors=[lambda _, row: row.astype(kind)])
    assert len(completion.token_ids) == 4


def fails(tokens, row):
    raise KeyError("a\nb")


class Odd:
    def __call__(self, tokens, row):
        return None


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (fails, r"^the logits processor fails failed after 3 tokens with KeyError: 'a\\nb'$"),
        (Odd(), r"^the logits processor of type Odd must return a NumPy array of 29 floats, .*, and returned None$"),
        (lambda _, row: row[:5], "lambda.* and returned an array of shape .5.$"),
        (lambda _, row: row.astype(int), "and returned an array of int64$"),
        (lambda _, row: np.full(V, -np.inf), "and returned one that leaves no token$"),
        (lambda _, row: row * np.nan, "and returned one with NaN or infinity in it$"),
        (lambda _, row: np.where(row == row.min(), np.inf, row), "and returned one with NaN or infinity in it$"),
        (lambda _, row: row.tolist(), r"and returned \[.*$"),
    ],
)
def test_what_is_wrong_with_one_fails_its_request_alone_in_a_line_that_names_it(fake, function, message):
    engine = Engine(fake.Program(), batch_size=3)
    good, bad, failed = Request(0, [4], SamplingParams(6)), None, []
    bad = Request(1, PROMPT, SamplingParams(6, logits_processors=(function,)))
    engine.submit(good)
    engine.submit(bad)
    finished = []
    while engine._scheduler.unfinished:
        finished += engine.step(failed)
    assert (finished, failed) == ([good], [bad])
    assert good.output_ids == fake.greedy([4], 6, 40, eos=())
    assert isinstance(bad.error, RequestError)
    with pytest.raises(RequestError, match=message):
        raise bad.error
    assert engine._scheduler.pool.free_count == engine.program.pages


def test_one_that_calls_its_own_model_is_refused_and_the_model_works_on(fake, model):
    calls = [
        lambda: model.logits([1]),
        lambda: model.generate([[1]]),
        lambda: list(model.stream("a")),
        model.close,
    ]
    for call in calls:

        def asks(tokens, row, call=call):
            call()
            return row

        with pytest.raises(
            RequestError, match="asks failed after 3 tokens with RequestError: a logits processor cannot"
        ):
            model.generate([PROMPT], logits_processors=[asks])
        assert model.generate([PROMPT], max_new_tokens=3)[0].token_ids == fake.greedy(PROMPT, 3, 40)
    assert model.engine._scheduler.pool.free_count == model.engine.program.pages


def test_one_that_asks_another_model_gets_its_answer(fake, model):
    other = LanguageModel(fake.Program(), batch_size=1)

    def like_the_other(tokens, row):
        return other.logits(tokens)[-1]

    [completion] = model.generate([PROMPT], max_new_tokens=5, logits_processors=[like_the_other], ignore_eos=True)
    assert completion.token_ids == fake.greedy(PROMPT, 5, 40, eos=())


def test_ctrl_c_within_one_ends_the_call_and_leaves_the_model_well(fake, model):
    def interrupted(tokens, row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate([PROMPT], logits_processors=[interrupted])
    assert model.generate([PROMPT], max_new_tokens=3)[0].token_ids == fake.greedy(PROMPT, 3, 40)
    assert model.engine._scheduler.pool.free_count == model.engine.program.pages
