"""Ids that no tokenizer has, which the tokenizers library would end the process for, and those that it skips."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.checks.vocabulary import LARGEST_ID, check_ids
from bossa.errors import TokenizerError
from bossa.tokenizer import Detokenizer, Tokenizer, shorten
from support.tokenizers import MADE

FRAME = {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}
SPACES = st.text(" \t\r\n", max_size=3)


def described(**parts: Any) -> dict[str, Any]:
    return json.loads(MADE["byte_level"]()) | parts


def with_id(place: str, number: int) -> dict[str, Any]:
    """A tokenizer with an id at one of the places where a file has them."""
    content = described()
    match place:
        case "vocabulary":
            content["model"]["vocab"]["far"] = number
        case "added token":
            content["added_tokens"].append(content["added_tokens"][-1] | {"content": "far", "id": number})
        case "frame":
            content["post_processor"] = FRAME | {"sep": ["far", number]}
    return content


@pytest.mark.parametrize("place", ["vocabulary", "added token", "frame"])
@given(number=st.integers(LARGEST_ID + 1, 2**70) | st.integers(10, 4000).map(lambda power: 10**power))
@settings(max_examples=25, deadline=None)
def test_an_id_that_no_tokenizer_has_is_refused_before_the_library_sees_it(place: str, number: int):
    data = json.dumps(with_id(place, number)).encode()
    with pytest.raises(TokenizerError, match=r"^m: tokenizer\.json: gives the token '.*' the id \S+, and 9,999,999 is"):
        Tokenizer.from_files({"tokenizer.json": data}, "m")
    assert shorten(data) == data


def test_a_vocabulary_of_its_own_is_looked_at_too():
    files = {"vocab.json": b'{"a": 2147483648}', "merges.txt": b"", "tokenizer_config.json": b"{}"}
    files["tokenizer_config.json"] = b'{"tokenizer_class": "GPT2Tokenizer"}'
    with pytest.raises(TokenizerError, match=r"^m: vocab\.json: gives the token 'a' the id 2,147,483,648"):
        Tokenizer.from_files(files, "m")


@given(number=st.integers(LARGEST_ID + 1, 2**40), before=SPACES, after=SPACES)
def test_an_id_is_seen_with_any_space_around_it(number: int, before: str, after: str):
    with pytest.raises(TokenizerError):
        check_ids(f'{{"a":{before}{number}{after}}}'.encode(), "m")


def test_long_numbers_that_are_no_ids_are_taken():
    cut = {"max_length": 10**12, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    content = described(truncation=cut)
    content["model"]["vocab"]["[12345678, 12345678]"] = LARGEST_ID
    tokenizer = Tokenizer.from_files({"tokenizer.json": json.dumps(content).encode()}, "m")
    assert tokenizer.token_id("[12345678, 12345678]") == LARGEST_ID
    assert shorten(json.dumps(content).encode()) != json.dumps(content).encode()


def test_a_model_with_such_a_tokenizer_gets_none_and_the_compiler_goes_on(tmp_path: Path):
    from bossa.frontend import sources
    from support import zoo

    (tmp_path / "config.json").write_text(json.dumps(zoo.MODELS["llama"].config().to_dict()))
    (tmp_path / "tokenizer.json").write_text(json.dumps(with_id("vocabulary", 2**31)))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    source = sources.find(str(tmp_path), None, None, False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert source.tokenizer_files(tmp_path / "saved") == {}
    assert "gives the token 'far' the id 2,147,483,648" in str(said[-1].message)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_what_is_skipped_one_at_a_time_is_what_is_skipped_together(kind: str, normalized: bool):
    """The library skips a special token by its text as the normalizer leaves it, so not every one that is flagged."""
    content = json.loads(MADE[kind]())
    content["added_tokens"] = [token | {"normalized": normalized, "special": True} for token in content["added_tokens"]]
    tokenizer = Tokenizer.from_files({"tokenizer.json": json.dumps(content).encode()}, "m")
    ids = [number for token in content["added_tokens"] for number in (tokenizer.token_id("a"), token["id"])]
    ids = [number for number in ids if isinstance(number, int)] * 2
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=True)
    parts = [detokenizer.add(number) for number in ids]
    assert "".join([*parts, detokenizer.finish()]) == tokenizer.decode(ids, skip_special_tokens=True)


FUSED = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]


@pytest.mark.parametrize(
    "end",
    [
        {"type": "Strip", "content": " ", "start": 4096, "stop": 0},
        {"type": "Strip", "content": "k", "start": 0, "stop": 1},
        {"type": "Replace", "pattern": {"String": "a  a"}, "content": "b"},
    ],
)
def test_a_decoder_of_the_whole_text_gives_it_at_the_end(end: dict[str, Any]):
    content = json.loads(MADE["byte_fallback"]()) | {"decoder": {"type": "Sequence", "decoders": [*FUSED, end]}}
    tokenizer = Tokenizer.from_files({"tokenizer.json": json.dumps(content).encode()}, "m")
    for text in ("  a  a  ", "<s> a </s>", "the quick"):
        ids = tokenizer.encode(text)
        for skip in (False, True):
            detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip)
            parts = [detokenizer.add(number) for number in ids]
            assert "".join([*parts, detokenizer.finish()]) == tokenizer.decode(ids, skip_special_tokens=skip)


def test_an_added_token_without_a_number_is_refused():
    files = {"tokenizer.json": MADE["byte_level"]().encode(), "added_tokens.json": b'{"x": 1e400}'}
    with pytest.raises(TokenizerError, match=r"tokens that tokenizer_config\.json adds are garbled"):
        Tokenizer.from_files(files, "m")


@given(before=st.text(" \n", min_size=20, max_size=80))
def test_an_id_far_behind_its_colon_is_seen(before: str):
    with pytest.raises(TokenizerError):
        check_ids(f'{{"a":{before}123456789}}'.encode(), "m")


def test_merges_of_digits_cost_no_parsing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("the file was parsed"))
    check_ids(b'{"model": {"vocab": {"0000 00000000": 1}, "merges": ["0000 0000", "00000000 00000000"]}}', "m")
