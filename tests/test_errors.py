"""Messages of errors name what files hold, and are one line of a length that is read."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from bossa.errors import BossaError, PefError


@given(st.text())
def test_a_message_is_one_line_in_which_nothing_acts_on_a_terminal(text):
    acting = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not acting & {unicodedata.category(letter) for letter in str(PefError(text))}
    assert len(str(PefError(text * 100))) < 1600


def test_an_ordinary_message_is_as_it_was_written():
    assert str(BossaError("/models/größe: no such file: make one")) == "/models/größe: no such file: make one"


def test_of_a_long_message_the_middle_is_left_out():
    message = str(BossaError("begin " + "x" * 5000 + " end"))
    assert message.startswith("begin x")
    assert message.endswith("x end")
