"""The example in docs/gpt2 is what the compiler makes now."""

from __future__ import annotations

import pytest

import write_gpt2_example


def test_a_missing_and_a_changed_file_are_stale_and_an_equal_one_is_not(tmp_path):
    files = {"equal": "a\n", "changed": "b\n", "missing": "c\n"}
    (tmp_path / "equal").write_text("a\n", encoding="utf-8")
    (tmp_path / "changed").write_text("b", encoding="utf-8")
    assert write_gpt2_example.stale(files, tmp_path) == ["changed", "missing"]


@pytest.mark.slow
def test_the_example_in_the_documents_is_what_the_compiler_makes_now():
    pytest.importorskip("transformers")
    differing = write_gpt2_example.stale(write_gpt2_example.example())
    assert not differing, f"docs/gpt2: {', '.join(differing)}: run scripts/write_gpt2_example.py and look at the change"
