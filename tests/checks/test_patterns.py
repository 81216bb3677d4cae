"""Regular expressions from outside: they mean what Python's do, and none takes long."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bossa.checks import patterns
from bossa.checks.patterns import PatternError, Patterns, check, is_supported

TRANSFORMERS = [
    *(r"^memory_.*", r"model\.layers\.80.*", r"^model\.(language_model\.)?layers\.46\.", r"(^|\.)mtp\..*"),
    *(r"detr\.model\.backbone\.model\.layer\d+\.0\.downsample", r"\.learnt_padding$", "inv_freq", r"^tracker_model."),
    *(r"rotary_emb\.inv_freq$", r"\.attn(\.attention)?\.(masked_)?bias$", r"h\.\d+\.attn\.bias", "decoder"),
]
NAMES = [
    *("memory_x", "x.memory_y", "model.layers.80.w", "model.layers.8.w", "model.layers.46.w", "mtp.w", "a.mtp.w"),
    *("model.language_model.layers.46.w", "xmtp.w", "detr.model.backbone.model.layer12.0.downsample.1", "a.inv_freq"),
    *(
        "rotary_emb.inv_freq",
        "rotary_emb.inv_freq.x",
        "h.0.attn.masked_bias",
        "h.0.attn.attention.bias",
        "h.0.attn.bias",
    ),
    *("", "decoder", "tracker_model", "tracker_models", "flow.learnt_padding", "h.x.attn.bias"),
]


def both(pattern: str, text: str) -> tuple[bool, bool]:
    return Patterns([pattern]).search(text), re.search(pattern, text) is not None


@pytest.mark.parametrize("pattern", TRANSFORMERS)
def test_what_transformers_ignores_is_found_as_python_finds_it(pattern: str):
    for name in NAMES:
        ours, python = both(pattern, name)
        assert ours == python, name
    together = Patterns(TRANSFORMERS)
    assert [together.search(name) for name in NAMES] == [
        any(re.search(each, name) for each in TRANSFORMERS) for name in NAMES
    ]


ATOMS = st.sampled_from(
    ["a", "b", ".", r"\.", "[ab]", "[^a]", "[a-b.]", r"\d", r"\w", "[]b]", "^", "$", r"\A", r"\Z", "{"]
)


def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    times = st.sampled_from(["*", "+", "?", "{2}", "{,2}", "{1,}", "{0,3}", "{0}", "*?", "+?", "??"])
    group = st.tuples(st.sampled_from(["(", "(?:"]), inner, st.just(")")).map("".join)
    repeated = st.tuples(st.one_of(group, ATOMS), times).map("".join)
    return st.one_of(
        group, repeated, st.lists(inner, min_size=0, max_size=4).map("".join), st.tuples(inner, inner).map("|".join)
    )


@given(st.recursive(ATOMS, grow, max_leaves=8), st.lists(st.text("ab.1{", max_size=6), min_size=1, max_size=5))
@settings(max_examples=400, deadline=None)
def test_any_expression_means_what_it_means_to_python(pattern: str, texts: list[str]):
    try:
        re.compile(pattern)
    except re.error:
        assume(False)
    assume(is_supported(pattern))
    searched = Patterns([pattern])
    for text in texts:
        assert searched.search(text) == (re.search(pattern, text) is not None)


@given(st.text(st.one_of(st.sampled_from(r"ab.\*+?{}[]()|^$,12:=!<PdwsAZbB"), st.characters()), max_size=30))
@settings(max_examples=400, deadline=None)
def test_any_text_is_an_expression_or_is_refused(pattern: str):
    try:
        check(pattern)
    except PatternError:
        return
    re.compile(pattern)
    Patterns([pattern]).search("ab12")


@pytest.mark.parametrize("text", [r"model.layers\.0\.w", "a" * 50, "é", "model/layers 1-2_x", r"^a\.b$"])
def test_plain_names_are_taken(text: str):
    check(text)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a", "is not closed"),
        ("a)", "closes nothing"),
        ("(?=a)", "meaning of its own"),
        ("(?i)a", "meaning of its own"),
        (r"(a)\1", "not understood"),
        (r"\ba", "not understood"),
        ("*a", "not understood"),
        ("a**", "repeats a repetition"),
        ("a{2}{3}", "repeats a repetition"),
        ("a{3,2}", "from more to fewer"),
        ("[z-a]", "bad character range"),
        ("[a", "not understood"),
        ("a{9999}", "more than 4000 states"),
        ("a{99999999999999999999}", "more than 4000 states"),
        ("(((((a{9}){9}){9}){9}){9}){9}", "more than 4000 states"),
        ("(" * 30 + "a" + ")" * 30, "groups inside each other"),
        ("a" * 3000, "more than 2000 characters"),
        ("(" * 2000, "groups inside each other"),
    ],
)
def test_what_is_not_matched_is_refused_with_a_reason(pattern: str, reason: str):
    with pytest.raises(PatternError, match=reason):
        check(pattern)
    assert not is_supported(pattern)


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "^(a|a)*$", "(a|aa)+$", "(.*)*x", "(a*)*b", "a*a*a*a*a*a*a*c", "(a?){60}a{60}$"]
)
def test_expressions_that_explode_take_no_time(pattern: str):
    start = time.perf_counter()
    assert not Patterns([pattern]).search("a" * 50_000 + "!")
    assert time.perf_counter() - start < 5


def test_many_states_at_once_are_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patterns, "WORK", 50_000)
    searched = Patterns(["a[ab]{300}c"])
    with pytest.raises(PatternError, match="take too long"):
        searched.search("ab" * 5_000)


def test_forgotten_sets_of_states_are_made_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patterns, "KEPT", 3)
    searched = Patterns(TRANSFORMERS)
    for _ in range(2):
        assert [searched.search(name) for name in NAMES] == [
            any(re.search(each, name) for each in TRANSFORMERS) for name in NAMES
        ]
