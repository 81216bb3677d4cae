"""Answers held to a grammar, in the engine: guesses, samples, interruptions, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from bossa.engine import Engine, Request, SamplingParams
from bossa.errors import RequestError, RuntimeFailure, TokenizerError
from bossa.language_model import LanguageModel
from bossa.sampling import grammar
from support.interruptions import run_cut_off

PROMPTS = ["abc", "the cat", "x"]
REGEX = "(on|off) the (moon|river|sea) (now )*[a-c]{2,4}"


def model_of(each, max_rows=16, batch_size=3, pages=64, habit=0.0):
    program = each.Program(max_rows=max_rows, pages=pages, habit=habit)
    return LanguageModel(
        program, each.Tokenizer(), batch_size=batch_size, eos_token_ids=[each.EOS], detokenizer=each.Detokenizer
    )


def held_to(each, prompt, regex, most, ends):
    """Greedy decoding that tries each token: of those after which some text of ``regex`` can still follow."""
    tokenizer = each.Tokenizer()
    tokens, new = tokenizer.encode(prompt), ""
    start = len(tokens)
    while len(tokens) < start + most:
        row = each.logits_of(tokens).copy()
        may = [token for token in range(28) if token != each.EOS and regex(new + tokenizer.decode([token])) != "no"]
        may += [each.EOS] if regex(new) == "whole" else []
        token = max(may, key=lambda token: (row[token], -token))
        tokens.append(token)
        if token in ends:
            break
        new += tokenizer.decode([token])
    return tokens[start:]


def ab(text):
    """Whether a text is one of ``[ab]{2,3}``, or begins one."""
    if re.fullmatch("[ab]{2,3}", text):
        return "whole"
    return "begun" if re.fullmatch("[ab]{0,1}", text) else "no"


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_answer_is_the_likeliest_token_that_may_come_each_time(each, prompt):
    [answer] = model_of(each).generate([prompt], regex="[ab]{2,3}")
    assert answer.token_ids == held_to(each, prompt, ab, 20, (each.EOS,))
    assert answer.finish_reason == "stop"
    assert re.fullmatch("[ab]{2,3}", answer.text)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_guesses_samples_and_batches_change_no_token(each, temperature, monkeypatch):
    asked = {"regex": REGEX, "n": 3, "temperature": temperature, "max_new_tokens": 30, "logprobs": 2}
    wanted = model_of(each, 40).generate(PROMPTS, **asked)
    assert any(answer.finish_reason == "stop" for answer in wanted)
    for answer in wanted:
        assert answer.finish_reason == "length" or re.fullmatch(REGEX, answer.text)
    for speculate, shape in ((4, (7, 2, 14)), (0, (2, 4, 20)), (8, (16, 1, 11))):
        model = model_of(each, *shape, habit=0.0)
        assert model.generate(PROMPTS, **asked, speculate=speculate) == wanted
    monkeypatch.setattr(grammar.Forced, "draft", lambda *_: [])
    monkeypatch.setattr(grammar.MaskPool, "prepare", lambda *_: None)
    assert model_of(each).generate(PROMPTS, **asked) == wanted


def test_tokens_without_a_choice_take_no_step_each(fake):
    model = model_of(fake, max_rows=30, batch_size=1)
    [answer] = model.generate(["abc"], regex="from the moon")
    assert answer.text == "from the moon"
    assert len(model.engine.program.steps) <= 4


def test_others_in_the_batch_get_what_they_get_alone(each):
    model = model_of(each, max_rows=6, batch_size=4, pages=20)
    plain = [Request(index, [index + 4, 6], SamplingParams(12)) for index in range(3)]
    held = [Request(5 + i, each.Tokenizer().encode(p), model.params(regex="[ab]{2,3}")) for i, p in enumerate(PROMPTS)]
    for request in [*plain, *held]:
        model.engine.submit(request)
    while model.engine._scheduler.unfinished:
        model.engine.step()
    assert [r.output_ids for r in plain] == [each.greedy([i + 4, 6], 12, 40, eos=()) for i in range(3)]
    assert [r.output_ids for r in held] == [held_to(each, p, ab, 20, (each.EOS,)) for p in PROMPTS]


def test_an_answer_that_its_length_cuts_is_marked(fake):
    [answer] = model_of(fake).generate(["abc"], regex="from the moon", max_new_tokens=4)
    assert (answer.text, answer.finish_reason) == ("from", "length")


def test_an_interruption_anywhere_changes_nothing(each):
    def start():
        model = model_of(each, max_rows=5, batch_size=2, pages=20)
        params = model.params(regex=REGEX, temperature=1.0)
        requests = [Request(index, each.Tokenizer().encode(prompt), params) for index, prompt in enumerate(PROMPTS)]
        for request in requests:
            model.engine.submit(request)
        return model, requests

    def watched(file):
        return "bossa/engine" in file or file.endswith("grammar.py")

    model, requests = start()
    lines = run_cut_off(model.engine, watched, None)
    wanted = [request.output_ids for request in requests]
    for at in range(0, len(lines), 1 + len(lines) // 15):
        model, requests = start()
        run_cut_off(model.engine, watched, at)
        while model.engine._scheduler.unfinished:
            model.engine.step()
        assert [request.output_ids for request in requests] == wanted, lines[at]


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"regex": "("}, RequestError, "regex is no regular expression that can be followed .*unclosed group"),
        ({"regex": r"(a)\1"}, RequestError, "backreferences are not supported"),
        ({"regex": ""}, RequestError, "regex must be a regular expression, or None"),
        ({"regex": 3}, RequestError, "regex must be a regular expression, or None, and is 3"),
        ({"regex": "a", "json_schema": {}}, RequestError, "regex and json_schema each say"),
        ({"regex": "a", "ignore_eos": True}, RequestError, "regex and ignore_eos contradict each other"),
        ({"json_schema": "{"}, RequestError, "json_schema must be a JSON schema: .* is no JSON"),
        ({"json_schema": "[1]"}, RequestError, "json_schema must be a JSON schema: a dict"),
        ({"json_schema": {"a": {1, 2}}}, RequestError, "cannot be written as JSON"),
        ({"json_schema": {"type": "strnig"}}, RequestError, "json_schema is no JSON schema .*Invalid type: strnig"),
        ({"json_schema": {"uniqueItems": True, "type": "array"}}, RequestError, "uniqueItems"),
        ({"json_schema": {"$ref": "#/none"}}, RequestError, "'/none' does not exist"),
        ({"regex": "a", "suppress_tokens": [0]}, RuntimeFailure, "has no token that may come at position 2"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_a_line(fake, asked, error, message):
    with pytest.raises(error, match=message) as refused:
        model_of(fake).generate([[1, 2]], **asked)
    assert "\n" not in str(refused.value)


def test_a_model_without_what_it_takes_is_refused(fake, monkeypatch):
    with pytest.raises(TokenizerError, match="the model has no tokenizer"):
        LanguageModel(fake.Program(), eos_token_ids=[3]).generate([[1]], regex="a")
    with pytest.raises(RequestError, match="need an end token behind the answer"):
        LanguageModel(fake.Program(), fake.Tokenizer()).generate([[1]], regex="a")
    plain = type("Plain", (), {"encode": lambda *_: [1], "decode": lambda *_: "a"})()
    with pytest.raises(TokenizerError, match="need a tokenizer of Bossa's own"):
        LanguageModel(fake.Program(), plain, eos_token_ids=[3]).generate([[1]], regex="a")
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(RequestError, match=r"need the package llguidance .*: pip install llguidance"):
        model_of(fake).generate([[1]], regex="a")


def test_a_failing_answer_fails_alone(fake):
    """One whose grammar leaves no token that the model has, beside one that goes on."""
    model = model_of(fake, batch_size=2)
    requests = [Request(i, [1, 2], model.params(regex=regex)) for i, regex in enumerate(["ab[é]", "[ab]{2,3}"])]
    for request in requests:
        model.engine.submit(request)
    failed = []
    while model.engine._scheduler.unfinished:
        model.engine.step(failed)
    assert failed == requests[:1]
    assert "the answer cannot be followed any further" in str(requests[0].error)
    assert requests[1].finish_reason == "stop"


def test_nothing_of_it_is_imported_before_it_is_asked_for():
    program = "import sys, bossa.engine, bossa.cli.run; print([n for n in sys.modules if 'llguidance' in n])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_same_grammar_is_compiled_once(fake, monkeypatch):
    made = []
    compiled = grammar.Grammars._compile
    monkeypatch.setattr(grammar.Grammars, "_compile", lambda self, *of: (made.append(of), compiled(self, *of))[1])
    model = model_of(fake)
    model.generate(PROMPTS, n=2, regex="[ab]{2,3}")
    model.generate(PROMPTS, regex="[ab]{2,3}")
    assert made == [("[ab]{2,3}", None)]
    assert isinstance(model.engine, Engine)
    assert np.isfinite(model.score("abc", "x"))
