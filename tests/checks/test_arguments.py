"""Arguments of the Python interface: what is right comes back, what is wrong is one line that names it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bossa.checks import arguments
from bossa.errors import RequestError

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers(), max_size=3),
    st.just(10**400), st.just(object()), st.just(np.float32(1.5)), st.just(np.int64(3)), st.just([1.5]),
)  # fmt: skip


@given(ODD)
def test_every_check_gives_a_value_of_its_type_or_one_line_that_names_the_argument(value):
    checks = {
        int: lambda: arguments.whole("n", value, 1, 10),
        float: lambda: arguments.real("n", value, 0.0, 1.0),
        bool: lambda: arguments.boolean("n", value),
        str: lambda: arguments.text("n", value),
        tuple: lambda: arguments.texts("n", value),
        list: lambda: arguments.token_ids("n", value),
    }
    for kind, check in checks.items():
        try:
            result, refusal = check(), None
        except RequestError as error:
            result, refusal = kind(), str(error)
        assert type(result) is kind
        assert refusal is None or (refusal.startswith("n must be ") and refusal.isprintable() and len(refusal) < 200)


@pytest.mark.parametrize("value", [True, 1.0, "2", None, 0, 11, 10**400])
def test_what_only_looks_like_a_whole_number_is_refused(value):
    with pytest.raises(RequestError, match="n must be a whole number from 1 to 10"):
        arguments.whole("n", value, 1, 10)
    assert arguments.whole("n", np.int64(3), 1, 10) == 3


@pytest.mark.parametrize("value", [[1.5], "ab", b"ab", None, 5, [True], [[1]]])
def test_what_are_no_token_ids_is_refused(value):
    with pytest.raises(RequestError, match="prompt must be a list of token ids"):
        arguments.token_ids("prompt", value)
    assert arguments.token_ids("prompt", np.array([1, 2], np.int32)) == [1, 2]
