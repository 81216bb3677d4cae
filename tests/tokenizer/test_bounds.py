"""Tokenizers whose parts would take for ever or grow without end, and a library that panics."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from bossa.errors import PromptError, TokenizerError
from bossa.tokenizer import Tokenizer, shorten
from bossa.tokenizer.bounds import _growth, fault_of
from bossa.tokenizer.library import call
from bossa.tokenizer.rules import WORDS_OF_QWEN2, WORDS_OF_QWEN3_5
from support.tokenizers import MADE

KNOWN = [
    WORDS_OF_QWEN2,
    WORDS_OF_QWEN3_5,
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{M}]*[\p{Ll}\p{M}]+(?i:'s|'t)?|[^\r\n\p{L}\p{N}]?[\p{Lu}]+[\p{Ll}\p{M}]*"
    r"(?i:'s|'t)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
    r"[\p{Han}]+|[^\r\n\p{L}]?[\p{Lu}\p{M}&&[^\p{Han}]]*[\p{Ll}&&[^\p{Han}]]+",
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    r"\d{1,3}(?=(?:\d{3})*\b)",
    r"[0-9][0-9][0-9]|[[:space:]]{2,}|(?<word>a+)|(?<=x)y*|(?#note)z",
    r"[\n]| {2,}",
]
EXPLODING = [
    r"(a+)+$",
    r"((a*)*)*b",
    r"(?:a|b*)*c",
    r"(?:a+b?)+c",
    r"(a|aa)+\1$",
    r"(?=(a+))\1+b",
    r"(?<x>a|\g<x>b)",
    r"(?<x>a)\k<x>",
    r"a*a*b",
    r"\s*,?\s*,?\s*x",
    r"(?:a{2,}){3,}",
    r"a+.*?b+.*?c",
    r"(?:\s*x\s*y)z",
    r"(a",
    r"[a",
    "(" * 3000 + ")" * 3000,
]


@pytest.mark.parametrize("pattern", KNOWN)
def test_the_patterns_that_tokenizers_have_are_taken(pattern: str):
    assert fault_of(pattern) == ""


@pytest.mark.parametrize("pattern", EXPLODING, ids=lambda pattern: pattern[:20])
def test_patterns_that_may_take_for_ever_are_refused(pattern: str):
    assert fault_of(pattern)


def read(made: str, **parts: Any) -> Tokenizer:
    described = json.loads(MADE[made]()) | parts
    return Tokenizer.from_files({"tokenizer.json": json.dumps(described).encode()})


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer", "decoder"])
def test_a_pattern_is_found_wherever_it_stands(part: str):
    pattern = {"Regex": r"(a+)+$"}
    replace = {"type": "Replace", "pattern": pattern, "content": "b"}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    inner = {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [replace]}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split]},
        "decoder": {"type": "Sequence", "decoders": [replace]},
    }
    with pytest.raises(TokenizerError, match=r"^the PEF: a pattern in its tokenizer repeats what repeats itself"):
        read("byte_level", **{part: inner[part]})


def replacing(text: str, by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": text}, "content": by}


@pytest.mark.parametrize(
    "chain",
    [
        [replacing("a", "a" * 10)] * 5,
        [replacing("a", "b" * 40), replacing("b", "c" * 40)],
        [{"type": "Replace", "pattern": {"Regex": ""}, "content": "x" * 2000}],
        [{"type": "Sequence", "normalizers": [replacing("a", "a" * 30)] * 3}],
    ],
)
def test_replacements_that_multiply_are_refused(chain: list[dict[str, Any]]):
    with pytest.raises(TokenizerError, match=r"replacements make up to .* characters of one, and 1,000 is the most"):
        read("byte_level", normalizer={"type": "Sequence", "normalizers": chain})
    with pytest.raises(TokenizerError, match="replacements make up to"):
        read("byte_level", decoder={"type": "Sequence", "decoders": [replacing("a", "a" * 50)] * 3})


@pytest.mark.parametrize("count", [(1, 1_000_000), (3, 1_000_000), (1000, 40), (100_000, 1)])
def test_long_prefixes_are_refused(count: tuple[int, int]):
    chain = [{"type": "Prepend", "prepend": "a" * count[1]}] * count[0]
    with pytest.raises(TokenizerError, match=r"prefixes and replacements make up to .* characters of one, and 1,000"):
        read("byte_level", normalizer={"type": "Sequence", "normalizers": chain})


def test_a_prefix_counts_for_each_piece_of_a_text():
    tokenizer = read("byte_level", normalizer={"type": "Prepend", "prepend": "a" * 900})
    assert len(tokenizer.encode("b")) > 1
    with pytest.raises(PromptError, match=r"may make 90,910,900 characters of a text of 100,000"):
        tokenizer.encode("<s>b" * 25_000)
    usual = read("byte_level", normalizer={"type": "Prepend", "prepend": "_"})
    assert usual.encode("a " * 1000)


def test_a_table_of_long_forms_counts_as_a_replacement():
    table = base64.b64encode(bytes([4, 0, 0, 0]) + bytes(4) + b"a\0" + b"b" * 100_000 + b"\0").decode()
    assert _growth({"type": "Precompiled", "precompiled_charsmap": table[:16]}, "x").factor == 1
    with pytest.raises(TokenizerError, match=r"^x: its tokenizer's replacements make up to 100,000 characters"):
        _growth({"type": "Precompiled", "precompiled_charsmap": table}, "x")


def template(single: list[str], ids: int) -> dict[str, Any]:
    def pieces(names: list[str]) -> list[dict[str, Any]]:
        return [{"Sequence" if name in "AB" else "SpecialToken": {"id": name, "type_id": 0}} for name in names]

    special = {"<s>": {"id": "<s>", "ids": [0] * ids, "tokens": ["<s>"] * ids}}
    return {
        "type": "TemplateProcessing", "single": pieces(single), "pair": pieces(["A", "B"]), "special_tokens": special
    }  # fmt: skip


@pytest.mark.parametrize(
    ("processors", "what"),
    [
        ([template(["<s>", "A"], 1_000_000)], "adds more than 1000 tokens to a text"),
        ([template(["<s>"] * 2000 + ["A"], 1)], "adds more than 1000 tokens to a text"),
        ([template(["<s>"] * 30 + ["A"], 1)] * 40, "adds more than 1000 tokens to a text"),
        ([template(["A"] * 5, 1)], "repeats each text"),
        ([template(["A"] * 2, 1)] * 10, "repeats each text"),
    ],
)
def test_templates_that_add_much_are_refused(processors: list[dict[str, Any]], what: str):
    with pytest.raises(TokenizerError, match=f"^the PEF: its tokenizer's post_processor {what}: correct"):
        read("byte_level", post_processor={"type": "Sequence", "processors": processors})
    assert read("byte_level", post_processor=template(["<s>", "A", "<s>"], 2)).encode("a")[:2] == [0, 0]


@pytest.mark.parametrize("affix", ["continuing_subword_prefix", "end_of_word_suffix"])
def test_a_mark_of_words_is_short(affix: str):
    model = json.loads(MADE["byte_level"]())["model"] | {"merges": []}
    with pytest.raises(TokenizerError, match=f"its tokenizer's {affix} has more than 32 letters"):
        read("byte_level", model=model | {affix: "a" * 100_000})


GROWING = {"type": "Sequence", "normalizers": [replacing("a", "aa")] * 40}


@pytest.mark.parametrize("place", ["before", "after", "escaped", "spaced", "again"])
@pytest.mark.parametrize("added", ["in the file", "in the config"])
def test_added_tokens_are_not_given_to_a_normalizer_that_multiplies(place: str, added: str):
    """The library runs it on each of them as it reads the file."""
    content = json.loads(MADE["byte_level"]())
    token = {"content": "a", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    files = {}
    if added == "in the file":
        content["added_tokens"].append({"id": content["model"]["vocab"]["a"], "special": False, **token})
    else:
        files["tokenizer_config.json"] = json.dumps({"added_tokens_decoder": {"70": token}}).encode()
    plain = {key: value for key, value in content.items() if key not in ("normalizer", "model")}
    model, growing = json.dumps(content["model"]), json.dumps(GROWING)
    start = json.dumps(plain | ({"normalizer": GROWING} if place == "before" else {}))[:-1]
    end = {
        "before": "",
        "after": f', "normalizer": {growing}',
        "escaped": f', "normali\\u007Aer": {growing}',
        "spaced": f',"normalizer"\n\t : {growing}',
        "again": f', "normalizer": {growing}, "x": {{"model": 1}}',
    }[place]
    files["tokenizer.json"] = f'{start}, "model": {model}{end}}}'.encode()
    with pytest.raises(
        TokenizerError, match=r"replacements make up to 1,099,511,627,776 characters of one, and 1,000 is the most"
    ):
        Tokenizer.from_files(files)
    assert shorten(files["tokenizer.json"]) == files["tokenizer.json"]


@pytest.mark.parametrize("added", ["in the file", "in the config"])
def test_added_tokens_that_would_grow_too_long_are_refused(added: str):
    long = {"id": 70, "content": "b" * 100_000, "single_word": False, "lstrip": False, "rstrip": False}
    long |= {"normalized": True, "special": False}
    content = json.loads(MADE["byte_level"]()) | {"normalizer": replacing("a", "b" * 500)}
    content["added_tokens"] += [long] if added == "in the file" else []
    config = {} if added == "in the file" else {"extra_special_tokens": [long["content"]]}
    files = {"tokenizer.json": json.dumps(content).encode(), "tokenizer_config.json": json.dumps(config).encode()}
    with pytest.raises(TokenizerError, match=r"may make 50,012,500 characters of the tokens that are added to it"):
        Tokenizer.from_files(files)


def test_a_text_that_would_grow_too_long_is_refused():
    tokenizer = read("byte_level", normalizer=replacing("a", "b" * 500))
    assert tokenizer.encode("aa", add_special_tokens=False) == tokenizer.encode("b" * 1000, add_special_tokens=False)
    with pytest.raises(PromptError, match=r"may make 50,000,000 characters of a text of 100,000"):
        tokenizer.encode("a" * 100_000)
    assert read("byte_level").encode("a " * 100_000)


def test_words_that_word_piece_would_try_for_ever_are_refused():
    model = json.loads(MADE["word_piece"]())["model"]
    with pytest.raises(TokenizerError, match="splits words of 1000000000 letters, and 1000 is the most"):
        read("word_piece", model=model | {"max_input_chars_per_word": 10**9})


def test_a_panic_of_the_library_is_one_line(capfd: pytest.CaptureFixture[str]):
    """Of a pattern that takes exponentially many ways without a repeat in a repeat, which the library gives up on."""
    tokenizer = read("byte_level", pre_tokenizer=json.loads(panicking().to_str())["pre_tokenizer"])
    started = time.process_time()
    with pytest.raises(PromptError, match=r"^the tokenizer does not take this text \(Onig: [^\n]*\): shorten it"):
        tokenizer.encode("a" * 60 + "c")
    assert time.process_time() - started < 20
    assert tokenizer.encode("b", add_special_tokens=False)


def test_a_panic_is_told_from_what_ends_a_process():
    with pytest.raises(KeyboardInterrupt):
        call(TokenizerError, interrupt)
    with pytest.raises(TokenizerError, match=r"^Onig"):
        call(TokenizerError, panicking().encode, "a" * 60 + "c")


def interrupt() -> None:
    raise KeyboardInterrupt


def panicking() -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("(a|aa)+$"), "isolated")
    return backend


@pytest.mark.parametrize(
    "data",
    [
        b'{"model": {"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}}',
        b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}',
        b'{"version": "1.0", "added_tokens": [{"id": 1}], "model": {"type": "BPE", "vocab": {}, "merges": []}}',
        b"[" * 100_000,
        b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}}',
    ],
)
def test_damaged_descriptions_are_one_line(data: bytes):
    with pytest.raises(
        TokenizerError, match=r"^the PEF: tokenizer.json cannot be read \([^\n]*\): fetch the tokenizer"
    ):
        Tokenizer.from_files({"tokenizer.json": data})


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.sampled_from(["", "a", "Replace", "Prepend", "(a+)+$"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "pattern", "content", "prepend", "String", "Regex", "x"]), inner)
    ),
    max_leaves=8,
)


@given(normalizer=ODD, added=ODD)
def test_any_json_in_the_place_of_a_normalizer_is_taken_or_refused_in_a_line(normalizer: Any, added: Any):
    described = json.loads(MADE["byte_level"]()) | {"normalizer": normalizer, "added_tokens": added}
    data = json.dumps(described).encode()
    refused = ""
    try:
        Tokenizer.from_files({"tokenizer.json": data})
    except TokenizerError as error:
        refused = str(error)
    assert refused.isprintable()
    assert shorten(data)
