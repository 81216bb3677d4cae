"""Text from outside is shown without what a terminal would act on."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bossa.errors import counted, kind_of, shown


@given(st.text())
def test_nothing_that_is_shown_acts_on_a_terminal(text):
    assert not {unicodedata.category(letter) for letter in shown(text)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_text_is_shown_as_it_is(text):
    assert shown(text) == text


def test_escapes_say_what_was_there():
    assert shown("a\x1b[31mb\u202ec\ud800\nd") == r"a\x1b[31mb\u202ec\ud800\nd"
    assert shown("one\n\ttwo\r", lines=True) == "one\n\ttwo\\r"


@pytest.mark.parametrize(
    ("number", "text"),
    [(4e9, "4,000,000,000"), (1000.0, "1,000"), (7, "7"), (1e14, "100,000,000,000,000"), (1e300, "1e+300")],
)
def test_a_count_is_a_whole_number(number: float, text: str) -> None:
    assert counted(number) == text


def test_a_kind_has_its_article() -> None:
    assert [kind_of(value) for value in (3, "x", [], object(), None)] == [
        "an int", "a str", "a list", "an object", "a NoneType",
    ]  # fmt: skip
