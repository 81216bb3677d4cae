"""Text for people."""

from __future__ import annotations

import pytest

from bossa.cli.text import size, table


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (999_940, "999.9 KB"),
        (999_960, "1.0 MB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_a_size_is_written_in_the_largest_unit_that_leaves_a_number_above_one(count, text):
    assert size(count) == text


def test_the_columns_of_a_table_are_aligned():
    assert table([("a", "bb"), ("ccc", "d")], indent=2) == "  a    bb\n  ccc  d"


def test_a_table_without_rows_says_so():
    assert table([]) == "none"
