"""Values that options of several commands take."""

from __future__ import annotations

import click
import pytest

from bossa.cli.options import CountOrAll, Cpus, SequenceLength, Size


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


@pytest.mark.parametrize(("text", "cpus"), [("0", [0]), ("0-3,8", [0, 1, 2, 3, 8]), (" 2 , 1", [2, 1]), ("5-5", [5])])
def test_cpus_are_numbers_and_ranges(text: str, cpus: list[int]):
    assert Cpus().convert(text, None, None) == cpus


@pytest.mark.parametrize("text", ["", "a", "1,", "3-1", "-1", "1-", "1.5"])
def test_what_is_no_list_of_cpus_is_refused(text: str):
    with pytest.raises(click.UsageError, match="is not a list of CPUs: write it like 0-3,8"):
        Cpus().convert(text, None, None)
