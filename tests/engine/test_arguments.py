"""Odd arguments of the model's calls: each gives a result or one line that names it, and leaves nothing behind."""

from __future__ import annotations

import decimal
import fractions
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.engine import Engine, Request, SamplingParams
from bossa.engine.scoring import score
from bossa.errors import BossaError, RequestError, RuntimeFailure
from bossa.language_model import LanguageModel
from bossa.sampling.calls import Sampling


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 40),
    st.floats(),
    st.text(max_size=9),
    st.binary(max_size=3),
    st.lists(st.one_of(st.integers(-2, 30), st.floats(), st.text(max_size=2), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from(
        [10**400, -(10**400), [10**400], 1e-300, 5e-324, 1e308, math.inf, math.nan, "\x1b[31m\n", "\ud800", "é" * 5000]
    ),
    st.sampled_from([fractions.Fraction(1, 3), decimal.Decimal("0.5"), 1j, object(), print, Unprintable()]),
    st.builds(lambda: iter([1, 2])),
    st.sampled_from([np.int64(3), np.uint8(200), np.float32(0.5), np.float64("nan"), np.True_, np.array(2)]),
    st.sampled_from([np.array([1, 2]), np.array([1.5]), np.zeros((2, 2), np.int32), np.array([]), np.array(["a"])]),
)
OPTIONS = (*Sampling.__annotations__, "n", "truncation", "on_completion")


@pytest.fixture
def model(fake):
    return LanguageModel(fake.Program(), fake.Tokenizer(), batch_size=3, detokenizer=fake.Detokenizer)


def _ends(call, *names):
    """Run it: it ends, with a result or with one line that names one of these."""
    refusal = ""
    try:
        call()
    except BossaError as error:
        refusal = str(error)
    except ValueError as error:  # the tokenizer here is a test's, which knows no other letters
        if "substring" not in str(error):
            raise
    assert refusal.isprintable()
    assert len(refusal) < 300
    assert not refusal or any(name in refusal for name in names), refusal


def _is_well(fake, model):
    scheduler = model.engine._scheduler
    assert scheduler.pool.free_count == model.engine.program.pages
    assert not scheduler.unfinished
    assert model.generate([[1, 2]], max_new_tokens=3)[0].token_ids == fake.greedy([1, 2], 3, 40, eos=())


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(OPTIONS), value=ODD, drawn=st.booleans())
def test_every_odd_option_gives_a_result_or_a_line_that_names_it(fake, name, value, drawn):
    model = LanguageModel(fake.Program(), fake.Tokenizer(), batch_size=3, detokenizer=fake.Detokenizer)
    if name == "n" and type(value) is int and value > 50:
        value = min(value, 2000)  # what is right may take a while
    options = {"max_new_tokens": 3, "temperature": 1.0 if drawn else 0.0, name: value}
    _ends(lambda: model.generate(["abc", [4, 5]], **options), name, "function")
    if name not in ("n", "on_completion"):
        _ends(lambda: list(model.stream("abc", **options)), name)
    _is_well(fake, model)


@settings(max_examples=200, deadline=None)
@given(value=ODD, other=ODD)
def test_every_odd_prompt_gives_a_result_or_a_line_that_names_it(fake, value, other):
    model = LanguageModel(fake.Program(), fake.Tokenizer(), batch_size=3, detokenizer=fake.Detokenizer)
    _ends(lambda: model.generate(value), "prompt")
    _ends(lambda: model.generate([[1], value]), "prompt", "token id")
    _ends(lambda: list(model.stream(value)), "prompt", "token id")
    _ends(lambda: model.logits(value), "token_ids", "prompt", "token id")
    _ends(lambda: model.score(value, other), "prompt", "completion", "token id")
    _ends(lambda: model.score([1], other), "completion", "token id")
    _is_well(fake, model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate(["a"], n=True), "n must be a whole number from 1, and is True"),
        (lambda m: m.generate(["a"], n=1.0), "n must be a whole number from 1, and is 1.0"),
        (lambda m: m.generate(["a"], n="2"), "n must be a whole number from 1, and is '2'"),
        (lambda m: m.generate(["a"], n=10**6), "n is 1000000, and at most 1,024 completions of a prompt run at a time"),
        (lambda m: m.generate(["a"], stop=5), "stop must be texts that are not empty, one or a list of them, and is 5"),
        (lambda m: m.generate(["a"], stop=""), "stop must be texts that are not empty"),
        (lambda m: m.generate(["a"], temperature=10**400), "temperature must be a number from 0, and is a huge number"),
        (lambda m: m.generate(["a"], repetition_penalty=1e-300), "repetition_penalty must be above 0, from 0.001 to"),
        (lambda m: m.generate(["a"], ignore_eos=1), "ignore_eos must be True or False, and is 1"),
        (lambda m: m.generate(["a"], truncation="middle"), "truncation must be left or right, and is 'middle'"),
        (lambda m: m.generate(["a"], on_completion=3), "on_completion must be a function, and is 3"),
        (lambda m: m.generate(None), "prompts must be a list of prompts, each a text or a list of token ids, and is"),
        (lambda m: m.generate({"a": 1}), "prompts must be a list of prompts"),
        (lambda m: m.generate([[1], [[2]]]), r"prompts\[1\] must be text or a list of token ids, and is \[2\]"),
        (lambda m: m.logits([1.5]), "token_ids must be a list of token ids .*, and is 1.5"),
        (lambda m: m.logits("hello"), "token_ids must be a list of token ids .those of a text are encode's., and is"),
        (lambda m: m.logits([10**5000]), "token id a huge number is not in the vocabulary, ids 0 to 28"),
        (lambda m: m.logits(np.zeros((2, 2), int)), "token_ids must be a list of token ids"),
        (lambda m: m.score("a", 3), "completion must be text or a list of token ids, and is 3"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(model, call, message):
    with pytest.raises(RequestError, match=f"^{message}"):
        call(model)
    assert not model.engine.program.steps


@pytest.mark.parametrize("name", ["max_tokens", "eos_token_ids", "n_samples"])
def test_an_argument_that_there_is_not_is_refused_as_python_does(model, name):
    for call in (lambda **more: model.generate(["a"], **more), lambda **more: model.stream("a", **more), model.params):
        with pytest.raises(TypeError, match=f"got an unexpected keyword argument '{name}'"):
            call(**{name: 3})
    assert not model.engine.program.steps


@pytest.mark.parametrize(
    "how",
    [
        {"suppress_tokens": [29]},
        {"begin_suppress_tokens": [-1]},
        {"bad_words_ids": [[1], [2, 29]]},
        {"sequence_bias": {(1, 29): 2.0}},
        {"forced_bos_token_id": 29},
        {"forced_eos_token_id": [3, 29]},
    ],
)
def test_a_token_that_is_not_in_the_vocabulary_is_refused_with_the_parameter_that_names_it(model, how):
    [name] = how
    with pytest.raises(
        RequestError, match=rf"^{name} names token id (29|-1), which is not in the vocabulary, ids 0 to 28"
    ):
        model.generate(["a"], **how)


def test_a_length_of_prompt_and_completion_together_is_kept_to(model):
    long, short = [[1] * 9, [1] * 3]
    found = model.generate([long, short], max_length=12, ignore_eos=True)
    assert [len(each.token_ids) for each in found] == [3, 9]
    assert [len(each.token_ids) for each in model.generate([long], max_length=12, max_new_tokens=5)] == [5]
    with pytest.raises(RequestError, match="the prompt has 9 tokens, and max_length, 9, leaves no room after it"):
        model.generate([long], max_length=9)
    [cut] = model.generate([[1] * 30], max_length=24, truncation="left", ignore_eos=True)
    assert (len(cut.prompt_token_ids), len(cut.token_ids)) == (4, 20)  # room for as many as there are by default


def test_numbers_and_arrays_of_numpy_and_torch_are_numbers_and_lists(fake, model):
    torch = pytest.importorskip("torch")
    expected = model.generate([[1, 2], [3, 4]], max_new_tokens=3, temperature=0.5, seed=4)
    for ids in (np.array([[1, 2], [3, 4]], np.uint16), torch.tensor([[1, 2], [3, 4]]), ((1, 2), (np.int8(3), 4))):
        options = {"max_new_tokens": np.int64(3), "temperature": np.float32(0.5), "seed": torch.tensor(4)}
        assert model.generate(ids, ignore_eos=np.False_, **options) == expected
    assert np.array_equal(model.logits(torch.tensor([4, 5])), model.logits([4, 5]))
    assert model.generate(iter([[1, 2]]), max_new_tokens=1)
    assert model.generate([], max_new_tokens=1) == []


# Logits that are no numbers


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "options", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 4, "repetition_penalty": 2}]
)
def test_a_request_whose_logits_are_no_numbers_fails_alone(fake, value, options):
    class Broken(fake.Program):
        def step(self, tokens, positions, starts, *others):
            found = super().step(tokens, positions, starts, *others)
            found[:, 9] = -100.0
            found[tokens[others[-1]] == 9] = value  # after one token alone
            return found

    engine = Engine(Broken(), batch_size=3)
    good = [Request(i, [i + 1], SamplingParams(6, **options)) for i in range(2)]
    for request in good:
        engine.submit(request)
    with pytest.raises(RuntimeFailure, match=r"^the logits of request 5 at position 1 are not finite numbers"):
        list(engine.generate([Request(5, [4, 9], SamplingParams(6, **options))]))
    bad, failed = Request(7, [9], SamplingParams(6, **options)), []
    engine.submit(bad)
    while engine._scheduler.unfinished:
        assert bad not in engine.step(failed)
    assert failed == [bad]
    assert str(bad.error).startswith("the logits of request 7 at position 0 are not finite")
    assert [len(request.output_ids) for request in good] == [6, 6]
    assert engine._scheduler.pool.free_count == engine.program.pages
    with pytest.raises(RuntimeFailure, match="not finite numbers"):
        score(engine, [9], [1])
    assert score(engine, [1], [2]) < 0


@settings(max_examples=200, deadline=None)
@given(
    row=st.lists(st.floats(width=32), min_size=1, max_size=8),
    temperature=st.floats(0, allow_infinity=False),
    top_k=st.integers(0, 9),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 1),
    penalty=st.floats(1e-3, 1e3),
)
def test_a_draw_is_of_a_token_that_can_be_or_an_error_whatever_the_logits(
    row, temperature, top_k, top_p, min_p, penalty
):
    from bossa.engine.sampler import sample

    logits = np.array(row, np.float32)
    request = Request(0, [0], SamplingParams(1, temperature, top_k, top_p, min_p, penalty))
    try:
        token = sample(logits, request)
    except RuntimeFailure:
        # What is no number, or has become none by the penalty.
        assert not np.isfinite(logits.max()) or abs(float(logits[0])) > 1e35
        return
    assert logits[token] > -np.inf
    assert not np.isnan(logits).any()
