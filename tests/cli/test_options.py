"""Values that options of several commands take."""

from __future__ import annotations

import click
import pytest

from bossa.cli.options import CountOrAll, SequenceLength, Size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("2GB", 2_000_000_000),
        ("2gib", 2 * 1024**3),
        ("2G", 2 * 1024**3),
        ("1.5 MB", 1_500_000),
        ("512MiB", 512 * 1024**2),
        ("7b", 7),
    ],
)
def test_a_size_is_written_as_people_write_it(text, size):
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2 gigs", "1e9", "2XB", "nan"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(click.BadParameter, match="is not a size"):
        Size().convert(text, None, None)


def test_a_count_may_be_all():
    assert [CountOrAll().convert(text, None, None) for text in ("0", "20", "all", "ALL")] == [0, 20, None, None]


def test_a_length_of_minus_one_is_the_most_that_there_can_be():
    assert [SequenceLength().convert(text, None, None) for text in ("-1", "1024")] == [None, 1024]


@pytest.mark.parametrize("text", ["0", "-2", "many", "1.5"])
def test_any_other_length_below_one_is_refused(text):
    with pytest.raises(click.BadParameter, match="is not a number of tokens"):
        SequenceLength().convert(text, None, None)
