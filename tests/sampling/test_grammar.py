"""Grammars over tokenizers of every kind: what a random walk through the masks comes to, and where it comes from."""

from __future__ import annotations

import json
import re
from functools import cache

import numpy as np
import pytest

from bossa.errors import RequestError, TokenizerError
from bossa.sampling.grammar import Grammars, MaskPool
from bossa.sampling.parameters import SamplingParams
from bossa.tokenizer import Tokenizer
from support.tokenizers import MADE

PAD = 37
"""Logits that no token of the tokenizer has."""

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "n": {"type": "integer", "minimum": -3, "maximum": 120},
        "kinds": {"type": "array", "items": {"enum": ["a b", "c"]}, "maxItems": 2},
        "ok": {"type": "boolean"},
    },
    "required": ["name", "n", "kinds", "ok"],
    "additionalProperties": False,
}


@cache
def tokens(made: str) -> tuple[Tokenizer, Grammars, tuple[int, ...]]:
    tokenizer = Tokenizer.from_files({"tokenizer.json": MADE[made]().encode()})
    ends = (0, 2, tokenizer.id_limit + 3)
    return tokenizer, Grammars(tokenizer, tokenizer.id_limit + PAD, ends), ends


def walk(grammars, params, ends, width, seed, most=120):
    """New tokens, each drawn from those that may come; the ends are drawn where they may."""
    random, output = np.random.default_rng(seed), []
    constraint = grammars.constraint(params)
    while len(output) < most:
        row = constraint.mask(output, np.zeros(width, np.float32))
        may = np.flatnonzero(row == 0)
        assert set(may) & set(ends) in (set(), set(ends))
        output.append(int(random.choice(may)))
        if output[-1] in ends:
            return output[:-1], True
    return output, False


@pytest.mark.parametrize("made", ["byte_fallback", "byte_level", "unigram"])
@pytest.mark.parametrize("regex", ["(the |a )?(quick|lazy) (fox|dog)", "[a-z]{1,6}", "she (said|says) (it|so)+"])
def test_an_answer_that_ends_matches_the_whole_regular_expression(made, regex):
    tokenizer, grammars, ends = tokens(made)
    before = tokenizer.encode("x", add_special_tokens=False)
    start, ended = tokenizer.decode(before), 0
    for seed in range(6):
        output, whole = walk(grammars, SamplingParams(regex=regex), ends, tokenizer.id_limit + PAD, seed)
        ended += whole
        text = tokenizer.decode([*before, *output])[len(start) :]
        if whole:
            assert re.fullmatch(regex, text), text
    assert ended >= 3


@pytest.mark.parametrize("made", ["byte_level", "byte_fallback"])
def test_an_answer_that_ends_is_json_of_the_schema(made):
    tokenizer, grammars, ends = tokens(made)
    before = tokenizer.encode("x", add_special_tokens=False)
    start, ended = tokenizer.decode(before), 0
    for seed in range(6):
        params = SamplingParams(json_schema=SCHEMA)
        output, whole = walk(grammars, params, ends, tokenizer.id_limit + PAD, seed)
        if not whole:
            continue
        ended += 1
        text = tokenizer.decode([*before, *output])[len(start) :]
        found = json.loads(text)
        assert list(found) == ["name", "n", "kinds", "ok"]
        assert len(found["name"]) <= 4
        assert isinstance(found["n"], int)
        assert -3 <= found["n"] <= 120
        assert set(found["kinds"]) <= {"a b", "c"}
        assert len(found["kinds"]) <= 2
        assert isinstance(found["ok"], bool)
        assert "\n" not in text
    assert ended >= 3


def test_a_mask_follows_from_the_tokens_whatever_was_asked_before():
    tokenizer, grammars, ends = tokens("byte_level")
    width = tokenizer.id_limit + PAD
    params = SamplingParams(regex="[a-c]{3,9}( fox)?")
    outputs = [walk(grammars, params, ends, width, seed)[0] for seed in range(4)]
    constraint, random = grammars.constraint(params), np.random.default_rng(1)
    for _ in range(60):
        output = outputs[random.integers(4)]
        output = output[: random.integers(len(output) + 1)]
        fresh = grammars.constraint(params).mask(output, np.zeros(width, np.float32))
        assert np.array_equal(constraint.mask(output, np.zeros(width, np.float32)), fresh)


def test_masks_computed_side_by_side_are_those_computed_alone_guesses_included():
    tokenizer, grammars, ends = tokens("byte_level")
    width = tokenizer.id_limit + PAD
    asked = [SamplingParams(regex="[a-c]{3,9}( fox)?"), SamplingParams(json_schema=SCHEMA), SamplingParams(regex="a|b")]
    outputs = [walk(grammars, params, ends, width, seed)[0] for seed, params in enumerate(asked)]
    together = [grammars.constraint(params) for params in asked]
    cuts = [(output[: len(output) // 2], output[len(output) // 2 :][:3]) for output in outputs]
    MaskPool().prepare((each, *cut) for each, cut in zip(together, cuts, strict=True))
    for params, each, (output, drafts) in zip(asked, together, cuts, strict=True):
        for held in range(len(drafts) + 1):
            so_far = [*output, *drafts[:held]]
            alone = grammars.constraint(params).mask(so_far, np.zeros(width, np.float32))
            assert each._found(so_far) is not None
            assert np.array_equal(each.mask(so_far, np.zeros(width, np.float32)), alone)


def test_a_guess_that_failed_leaves_no_mask_of_what_would_have_followed():
    tokenizer, grammars, _ = tokens("byte_level")
    width = tokenizer.id_limit + PAD
    a, b = (tokenizer.encode(letter, add_special_tokens=False) for letter in "ab")
    constraint = grammars.constraint(SamplingParams(regex="ax|by"))
    MaskPool().prepare([(constraint, [], a)])
    found = constraint.mask(b, np.zeros(width, np.float32))
    assert np.array_equal(
        found, grammars.constraint(SamplingParams(regex="ax|by")).mask(b, np.zeros(width, np.float32))
    )


@pytest.mark.parametrize("made", sorted(MADE))
def test_forced_tokens_are_the_only_ones_that_may_come(made):
    tokenizer, grammars, _ = tokens(made)
    params = SamplingParams(regex="the quick brown fox")
    constraint, output = grammars.constraint(params), []
    forced = constraint.forced([])
    assert forced
    for token in forced:
        row = constraint.mask(output, np.zeros(tokenizer.id_limit + PAD, np.float32))
        assert row[token] == 0
        output.append(token)


def test_an_end_token_that_is_a_text_comes_at_the_end_alone():
    tokenizer, _, _ = tokens("byte_level")
    [end] = tokenizer.encode("b", add_special_tokens=False)
    [a] = tokenizer.encode("a", add_special_tokens=False)
    constraint = Grammars(tokenizer, tokenizer.id_limit, (end,)).constraint(SamplingParams(regex="a[ab]?"))
    zeros = np.zeros(tokenizer.id_limit, np.float32)
    assert constraint.mask([], zeros.copy())[end] == -np.inf
    assert constraint.mask([a], zeros.copy())[end] == 0
    constraint = Grammars(tokenizer, tokenizer.id_limit, (end,)).constraint(SamplingParams(regex="a[ab]c"))
    assert constraint.mask([a], zeros.copy())[end] == -np.inf


def test_fewer_logits_than_tokens_are_no_trouble():
    tokenizer, _, _ = tokens("byte_level")
    [a] = tokenizer.encode("a", add_special_tokens=False)
    constraint = Grammars(tokenizer, a + 1, (0,)).constraint(SamplingParams(regex="a"))
    assert np.flatnonzero(constraint.mask([], np.zeros(a + 1, np.float32)) == 0).tolist() == [a]


def test_words_that_have_spaces_before_them_have_them_in_the_text_too():
    """As BERT's do, but for pieces that go on with a word."""
    tokenizer, grammars, ends = tokens("word_piece")
    output, whole = walk(grammars, SamplingParams(regex=" the quick( fox)?"), ends, tokenizer.id_limit + PAD, 0)
    assert whole
    before = tokenizer.encode("x", add_special_tokens=False)
    assert re.fullmatch("x the quick( fox)?", tokenizer.decode([*before, *output]))


def test_a_tokenizer_that_cannot_be_read_is_refused_in_a_line():
    class Wrong:
        id_limit = 3

        def to_json(self):
            raise ValueError("nothing\nat all")

        def token_texts(self):
            raise ValueError("nothing\nat all")

    with pytest.raises(TokenizerError, match=r"no text for each token .*\(nothing\)") as refused:
        Grammars(Wrong(), 3, (2,))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "schema", [{"type": "string", "pattern": "("}, {"type": "integer", "minimum": 5, "maximum": 2}]
)
def test_a_schema_that_nothing_fits_is_refused_in_a_line(schema):
    _, grammars, _ = tokens("byte_level")
    with pytest.raises(RequestError, match="json_schema is no JSON schema that can be followed") as refused:
        grammars.constraint(SamplingParams(json_schema=schema))
    assert "\n" not in str(refused.value)
