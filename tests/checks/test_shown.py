"""Text from outside is shown without what a terminal would act on."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from bossa.checks.shown import shown


@given(st.text())
def test_nothing_that_is_shown_acts_on_a_terminal(text):
    assert not {unicodedata.category(letter) for letter in shown(text)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_text_is_shown_as_it_is(text):
    assert shown(text) == text


def test_escapes_say_what_was_there():
    assert shown("a\x1b[31mb\u202ec\ud800\nd") == r"a\x1b[31mb\u202ec\ud800\nd"
    assert shown("one\n\ttwo\r", lines=True) == "one\n\ttwo\\r"
