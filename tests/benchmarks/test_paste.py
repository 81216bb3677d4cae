"""Tables into a document."""

from __future__ import annotations

from pathlib import Path

import pytest

import paste

DOCUMENT = """before
<!-- gpt2/rates: begin -->
old
<!-- gpt2/rates: end -->
between
<!-- other/rates: begin -->
kept
<!-- other/rates: end -->
"""


def test_a_table_takes_the_place_of_the_old_one_and_nothing_else_changes(tmp_path):
    (tmp_path / "rates.md").write_text("> what it is of.\n\n| a |\n| --- |\n")
    once = paste.paste(DOCUMENT, {"gpt2": tmp_path})
    assert once == DOCUMENT.replace("old\n", "\n| a |\n| --- |\n\n")
    assert paste.paste(once, {"gpt2": tmp_path}) == once


def test_a_table_that_is_missing_is_no_empty_place(tmp_path):
    with pytest.raises(FileNotFoundError):
        paste.paste(DOCUMENT, {"gpt2": tmp_path})


def test_every_place_in_the_performance_document_has_its_end():
    text = (Path(paste.__file__).parent.parent / "docs" / "performance.md").read_text(encoding="utf-8")
    assert len(paste.PLACE.findall(text)) == text.count(": begin -->") == text.count(": end -->") > 0
