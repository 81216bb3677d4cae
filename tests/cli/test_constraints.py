"""Answers that must be something, asked for on the command line: the options, and what is wrong with them."""

from __future__ import annotations

import json

import pytest

from bossa.tokenizer import Tokenizer
from support.tokenizers import MADE
from support.toys import LETTERS, LetterTokenizer


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "reviews.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ("abc", "x", "hello a")))
    return path


@pytest.fixture
def spelled(monkeypatch):
    """The toy model's tokenizer, as one that knows the text of each token."""
    monkeypatch.setattr(LetterTokenizer, "id_limit", len(LETTERS), raising=False)
    monkeypatch.setattr(LetterTokenizer, "to_json", lambda _: "{}", raising=False)
    monkeypatch.setattr(LetterTokenizer, "token_texts", lambda _: (["", *LETTERS[1:]], [0]), raising=False)


def run(bossa, *arguments):
    return bossa("run", "-p", "x.pef", *arguments)


def test_each_answer_is_the_likeliest_choice(bossa, loading, reviews, tmp_path):
    out = tmp_path / "out.jsonl"
    result = run(bossa, "--data_dir", reviews, "--choices", "de,yz,bc", "--output", out)
    assert result.code == 0, result.err
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["completion"] for record in records] == ["de", "yz", "bc"]
    assert {record["finish_reason"] for record in records} == {"stop"}


def test_a_list_of_choices_is_json_where_they_hold_commas(bossa, loading):
    result = run(bossa, "--prompt", "abc", "--choices", '["de", "xy z"]')
    assert (result.code, result.out) == (0, "de\n")


def test_an_answer_is_held_to_a_regular_expression_and_to_a_schema(bossa, loading, spelled, tmp_path):
    result = run(bossa, "--prompt", "abc", "--regex", "(dx|ef|q)[a-z]")
    assert (result.code, result.out) == (0, "dxy\n")
    schema = tmp_path / "schema.json"
    schema.write_text('{"const": 3}')
    result = run(bossa, "--prompt", "abc", "--json-schema", schema)
    assert result.code == 2
    assert "no token that may come" in result.err or "cannot be followed" in result.err  # the toy has no digits


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--choices", "yes,,no"], "choice 2 of 'yes,,no' is no text, or empty"),
        (["--choices", "yes,yes"], "'yes' is there twice"),
        (["--choices", "[1]"], "choice 1 of '[1]' is no text"),
        (["--choices", "[]"], "there are none in the list"),
        (["--choices", '["a"'], "it begins with [, and is no JSON list"),
        (["--choices", "yes", "--regex", "a"], "choices and regex each say what the completion must be"),
        (["--regex", "("], "regex is no regular expression that can be followed (unclosed group)"),
        (["--json-schema", "none.json"], "none.json cannot be read: No such file or directory"),
        (["--json-schema", "list.json"], "list.json must be a JSON schema"),
        (["--json-schema", "no.json"], "no.json must be a JSON schema"),
        (["--json-schema", "type.json"], "json_schema is no JSON schema that can be followed (Invalid type: strnig)"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(bossa, loading, spelled, reviews, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name, text in (("list", "[1]"), ("no", "{"), ("type", '{"type": "strnig"}')):
        (tmp_path / f"{name}.json").write_text(text)
    for source in (["--prompt", "abc"], ["--data_dir", reviews, "--output", tmp_path / "out.jsonl"]):
        result = run(bossa, *source, *arguments)
        assert result.code == 2
        assert message in result.err
        assert not result.out
        assert not (tmp_path / "out.jsonl").exists()
        assert len([line for line in result.err.splitlines() if line.startswith("bossa: ")]) <= 1


def test_a_tokenizer_says_what_each_token_adds_to_a_text():
    tokenizer = Tokenizer.from_files({"tokenizer.json": MADE["unigram"]().encode()})
    texts, special = tokenizer.token_texts()
    assert len(texts) == tokenizer.id_limit
    ids = tokenizer.encode("the quick fox", add_special_tokens=False)
    assert "".join(texts[token] for token in ids) == " the quick fox"
    assert {tokenizer.token(token) for token in special} == {"<unk>", "<s>", "</s>"}
    assert not any(texts[token] for token in special)
