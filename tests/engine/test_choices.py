"""Choices: the answer against all choices weighed one by one, and whatever runs beside them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.engine import Request, SamplingParams
from bossa.engine.choices import Chooser, choice_tokens
from bossa.errors import RequestError, TokenizerError
from bossa.language_model import LanguageModel
from support.interruptions import run_cut_off

CHOICES = ["hello", "help", "he", "x", "moon", "moon river", "éa"]
PROMPTS = ["abc", "the cat sat on it", "the cat sat on me", "x"]


def model_of(each, max_rows=16, batch_size=3, pages=64, **more):
    program = each.Program(max_rows=max_rows, pages=pages, **more)
    return LanguageModel(
        program, each.Tokenizer(), batch_size=batch_size, eos_token_ids=[each.EOS], detokenizer=each.Detokenizer
    )


def weighed(each, prompt, choices=CHOICES):
    """The log probability of each choice, from the logits of whole sequences."""
    tokenizer = each.Tokenizer()
    start = tokenizer.encode(prompt)
    ids = [tokenizer.encode(choice, add_special_tokens=False) for choice in choices]
    found = []
    for tokens in ids:
        begins = any(other[: len(tokens)] == tokens for other in ids if other is not tokens)
        total, before = 0.0, list(start)
        for token in [*tokens, each.EOS] if begins else tokens:
            row = each.logits_of(before).astype(np.float64)
            total += row[token] - row.max() - math.log(np.exp(row - row.max()).sum())
            before.append(token)
        found.append(total)
    return found


@pytest.mark.parametrize(("max_rows", "batch_size", "pages"), [(16, 3, 64), (3, 1, 11), (5, 4, 12), (1, 1, 64)])
def test_scores_are_those_of_whole_sequences_and_the_answer_is_the_likeliest(each, max_rows, batch_size, pages):
    model = model_of(each, max_rows, batch_size, pages)
    scores = model.choose(PROMPTS, CHOICES)
    for index, (prompt, found) in enumerate(zip(PROMPTS, scores, strict=True)):
        assert found.index == index
        assert found.logprobs == pytest.approx(weighed(each, prompt), rel=1e-12)
        assert found.logprobs[0] == model.score(prompt, CHOICES[0])
        assert found.answer == CHOICES[int(np.argmax(weighed(each, prompt)))]
        assert sum(found.probabilities) == pytest.approx(1)
        assert found.probabilities[found.best] == max(found.probabilities)
    answers = model.generate(PROMPTS, choices=CHOICES)
    assert [answer.text for answer in answers] == [found.answer for found in scores]
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert {answer.token_ids[-1] for answer in answers} == {each.EOS}
    assert model.engine._scheduler.pool.free_count == pages


def test_the_likeliest_is_no_greedy_walk_and_a_beginning_can_win_and_lose(fake):
    """Over all prompts, the first token of the answer is often not the likeliest one, and both of a pair are chosen."""
    model, pair, greedy = model_of(fake), set(), 0
    prompts = [[a, b] for a in range(29) for b in (1, 5)]
    for scores in model.choose(prompts, ["a", "ab", "cf"]):
        pair.add(scores.answer)
        first = fake.logits_of(scores.prompt_token_ids)
        greedy += {0: "a", 2: "c"}[max((0, 2), key=lambda token: first[token])] == scores.answer[0]
    assert pair == {"a", "ab", "cf"}
    assert greedy < len(prompts)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("abcx", min_size=1, max_size=6), min_size=1, max_size=7, unique=True),
    st.integers(1, 9),
    st.lists(st.integers(4, 28), min_size=1, max_size=12),
)
def test_branches_that_are_left_out_cannot_be_the_answer(fake, choices, max_rows, prompt):
    model = model_of(fake, max_rows)
    [scores], [answer] = model.choose([prompt], choices), model.generate([prompt], choices=choices)
    assert answer.text.lstrip("\ufffd") == scores.answer  # half a character may end the prompt


def test_the_prompt_is_computed_once_and_branches_are_its_only_other_rows(fake):
    model = model_of(fake, batch_size=1)
    model.choose(["the cat sat"], ["x", "y", "ab"])
    assert model.engine.program.steps == [[12], [1]] or model.engine.program.steps == [[12]]
    before = len(model.engine.program.steps)
    model.generate(["the dog sat"], choices=["x", "y", "z"])
    assert len(model.engine.program.steps) - before == 1  # of tokens that the prompt's own logits weigh


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_draws_are_by_the_probabilities_of_choices(each, temperature):
    model = model_of(each, batch_size=4)
    drawn = model.generate(["abc"], n=300, choices=CHOICES[:3], temperature=temperature, seed=5)
    scores = np.array(weighed(each, "abc", CHOICES[:3])) / temperature
    wanted = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    found = [sum(answer.text == choice for answer in drawn) / 300 for choice in CHOICES[:3]]
    assert found == pytest.approx(wanted, abs=0.1)
    again = model_of(each, max_rows=4, batch_size=1).generate(
        ["abc"], n=5, choices=CHOICES[:3], temperature=temperature, seed=5
    )
    assert [answer.text for answer in again] == [answer.text for answer in drawn[:5]]


def test_filters_are_about_choices(fake):
    model = model_of(fake)
    best = model.choose(["abc"], CHOICES)[0].answer
    drawn = model.generate(["abc"], n=40, choices=CHOICES, temperature=5.0, top_k=1)
    assert {answer.text for answer in drawn} == {best}
    assert len({answer.text for answer in model.generate(["abc"], n=40, choices=CHOICES, temperature=5.0)}) > 2


def test_others_beside_them_get_what_they_get_alone(each):
    model = model_of(each, max_rows=6, batch_size=4, pages=20)
    plain = [Request(index, [index + 4, 6], SamplingParams(12)) for index in range(4)]
    params = model.params(choices=CHOICES)
    asked = [Request(index, each.Tokenizer().encode(prompt), params) for index, prompt in enumerate(PROMPTS)]
    found = {id(r): r for r in plain + asked}
    for request in (r for both in zip(plain, asked, strict=True) for r in both):
        model.engine.submit(request)
    while model.engine._scheduler.unfinished:
        model.engine.step()
    assert [r.output_ids for r in plain] == [each.greedy([i + 4, 6], 12, 40, eos=()) for i in range(4)]
    assert [found[id(r)].text for r in asked] == [CHOICES[int(np.argmax(weighed(each, p)))] for p in PROMPTS]


def test_a_stream_gives_the_same_text(each):
    model = model_of(each)
    assert "".join(model.stream("abc", choices=CHOICES)) == model.generate(["abc"], choices=CHOICES)[0].text


def test_log_probabilities_of_the_answer_are_those_of_its_tokens(each):
    model = model_of(each)
    [answer] = model.generate(["abc"], choices=CHOICES, logprobs=2)
    before = list(answer.prompt_token_ids)
    for token, said in zip(answer.token_ids, answer.logprobs, strict=True):
        row = each.logits_of(before).astype(np.float64)
        assert said.token_id == token
        assert said.logprob == pytest.approx(row[token] - math.log(np.exp(row).sum()), rel=1e-9)
        assert len(said.top) == 2
        before.append(token)


def test_an_answer_that_is_cut_is_marked_and_a_whole_one_is_not(fake):
    model = model_of(fake)
    [cut] = model.generate(["abc"], choices=["hello"], max_new_tokens=3)
    assert (cut.text, cut.finish_reason) == ("hel", "length")
    [whole] = model.generate(["abc"], choices=["hello"], max_new_tokens=5)
    assert (whole.text, whole.finish_reason, len(whole.token_ids)) == ("hello", "stop", 5)
    [stopped] = model.generate(["abc"], choices=["hello"], stop=["l"])
    assert (stopped.text, stopped.finish_reason) == ("he", "stop")


def test_a_model_without_end_tokens_answers_with_the_choice_alone(fake):
    model = LanguageModel(fake.Program(), fake.Tokenizer(), detokenizer=fake.Detokenizer)
    [answer] = model.generate(["abc"], choices=["moon", "x"])
    assert answer.finish_reason == "stop"
    assert fake.Tokenizer().decode(answer.token_ids) == answer.text
    assert model.whole_text(answer) == "aabc" + answer.text


def test_all_end_tokens_together_end_a_beginning(fake):
    model = LanguageModel(fake.Program(), fake.Tokenizer(), eos_token_ids=[3, 20], detokenizer=fake.Detokenizer)
    start = fake.Tokenizer().encode("abc")
    [scores] = model.choose(["abc"], ["moon", "moon river"])
    moon = fake.Tokenizer().encode("moon", add_special_tokens=False)
    both = [math.exp(model.score(start, [*moon, end])) for end in (3, 20)]
    assert scores.logprobs[0] == pytest.approx(math.log(sum(both)), rel=1e-12)


def test_an_interruption_at_any_line_changes_nothing(each):
    """Ctrl-C at lines of the engine all over what runs, then on: the same answer, and all pages are given back."""

    def start():
        model = model_of(each, max_rows=5, batch_size=2, pages=14)
        params = model.params(choices=CHOICES)
        requests = [Request(index, each.Tokenizer().encode(prompt), params) for index, prompt in enumerate(PROMPTS[:2])]
        for request in requests:
            model.engine.submit(request)
        return model, requests

    def watched(file):
        return "bossa/engine" in file

    model, requests = start()
    lines = run_cut_off(model.engine, watched, None)
    wanted = [request.output_ids for request in requests]
    for at in range(0, len(lines), 1 + len(lines) // 30):
        model, requests = start()
        run_cut_off(model.engine, watched, at)
        while model.engine._scheduler.unfinished:
            model.engine.step()
        assert [request.output_ids for request in requests] == wanted, lines[at]
        assert [request.finish_reason for request in requests] == ["stop", "stop"]
        assert model.engine._scheduler.pool.free_count == 14


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"choices": "yes"}, "choices must be a list of texts"),
        ({"choices": ["yes", "yes"]}, "each of them once, and is 'yes'"),
        ({"choices": ["yes", ""]}, "texts that are not empty"),
        ({"choices": ["yes", 3]}, "and is 3"),
        ({"choices": ["fad", "x"]}, "the choice 'fad' holds a token that ends a completion"),
        ({"choices": ["yes"], "regex": "a"}, "choices and regex each say what the completion must be"),
        ({"choices": ["yes"], "ignore_eos": True}, "choices and ignore_eos contradict each other"),
        ({"choices": ["yes"], "logits_processors": [print]}, "which logits_processors do not change"),
        ({"choices": ["a" * 60]}, "the longest of its choices 59, and at most 40 fit"),
    ],
)
def test_choices_that_cannot_be_are_refused_in_a_line(fake, asked, message):
    with pytest.raises(RequestError, match=message) as refused:
        model_of(fake).generate(["abc"], **asked)
    assert "\n" not in str(refused.value)


def test_choices_that_cannot_be_told_apart_are_refused(fake):
    with pytest.raises(RequestError, match="begins another one, and the model has no end token"):
        LanguageModel(fake.Program(), fake.Tokenizer()).generate(["abc"], choices=["moon", "moon river"])
    with pytest.raises(RequestError, match="the choices 'A' and 'a' have the same tokens"):
        Chooser(["a", "A"][::-1], [(1,), (1,)], SamplingParams(eos_token_ids=(3,)), weigh_all=False)
    with pytest.raises(RequestError, match="there are no choices"):
        model_of(fake).choose(["abc"], [])
    with pytest.raises(RequestError, match="a list of prompts"):
        model_of(fake).choose("abc", ["a"])
    with pytest.raises(TokenizerError, match="the model has no tokenizer"):
        LanguageModel(fake.Program()).generate([[1]], choices=["a"])


class Spacing:
    """A tokenizer that puts a space before each text, and knows no capitals."""

    def encode(self, text, add_special_tokens=True):
        return [ord(letter) for letter in " " + text.lower()]

    def decode(self, ids):
        return "".join(map(chr, ids))


def test_a_choice_is_written_without_the_space_that_a_tokenizer_puts_before_a_text():
    assert choice_tokens(Spacing(), "yes", Spacing().encode("so")) == tuple(map(ord, "yes"))
    assert choice_tokens(Spacing(), " yes", Spacing().encode("so")) == tuple(map(ord, " yes"))
    with pytest.raises(RequestError, match="the choice 'Yes' has no tokens of this tokenizer that read the same"):
        choice_tokens(Spacing(), "Yes")


def test_a_prompt_is_cut_to_leave_room_for_the_longest(fake):
    model = model_of(fake)
    prompt = "the cat sat on it and then it sat on me too"
    with pytest.raises(RequestError, match="fit"):
        model.choose([prompt.replace("d", "")], ["moon river"])
    [scores] = model.choose([prompt.replace("d", "")], ["moon river", "x"], truncation="left")
    assert len(scores.prompt_token_ids) + len("moon river") < 41
    assert scores.logprobs[1] == model.score(scores.prompt_token_ids, "x")
