"""Perplexity: what is scored, and the table."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import quality
import serve
from bossa.tokenizer import Tokenizer
from comparison import machine


def test_a_review_is_what_stands_between_the_markers():
    lines = ['{"prompt": "REVIEW: Fine film. QUESTION: Good?\\n"}\n', "\n", '{"prompt": "No markers "}\n']
    assert quality.review_texts(lines, "prompt", "REVIEW: ", " QUESTION: ") == ["Fine film.", "No markers"]
    assert quality.review_texts(lines[2:], "prompt", "", "") == ["No markers"]


def test_windows_have_one_length_and_do_not_overlap():
    assert quality.cut(range(10), 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert quality.cut(range(8), 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert quality.cut(range(10), 4, most=7) == [[0, 1, 2, 3]]
    assert quality.cut(range(3), 4) == []


def test_surprise_is_of_every_token_after_the_first_given_those_before():
    logits = np.log(np.array([[0.25, 0.75], [0.5, 0.5], [0.1, 0.9]], np.float32)) + 3  # a shift changes nothing
    assert serve.surprise(logits, [0, 1, 0]) == pytest.approx(-np.log(0.75) - np.log(0.5), rel=1e-6)
    far = np.array([[5e4, 0], [0, 0]], np.float32)  # exp would overflow
    assert serve.surprise(far, [0, 0]) == pytest.approx(0, abs=1e-12)


def test_the_table_compares_with_the_reference():
    scores = {
        "transformers eager": {"perplexity": 20.0, "weight_bytes": 538_000_000},
        "Bossa int8": {"perplexity": 20.05, "weight_bytes": 135_400_000},
    }
    assert quality.quality_table(scores).splitlines()[2:] == [
        "| transformers eager | 20.0000 | +0.00% | 538.0 |",
        "| Bossa int8 | 20.0500 | +0.25% | 135.4 |",
    ]
    assert "| Bossa int8 | 20.0500 |  | 135.4 |" in quality.quality_table({"Bossa int8": scores["Bossa int8"]})


def test_the_table_goes_to_the_machine_s_results_and_says_what_it_is_of(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    monkeypatch.setattr(Tokenizer, "from_directory", lambda folder: SimpleNamespace(encode=lambda *_, **__: range(9)))
    engine = SimpleNamespace(name="transformers eager")
    monkeypatch.setattr(quality, "find_engines", lambda *_: ([engine], []))
    monkeypatch.setattr(quality, "score", lambda *_: {"perplexity": 20.0, "weight_bytes": 5_000_000})
    reviews = tmp_path / "reviews.jsonl"
    reviews.write_text('{"prompt": "Fine."}\n')
    given = ["--work", str(tmp_path), "--model", str(tmp_path / "tiny"), "--reviews", str(reviews), "--window", "4"]
    assert quality.main([*given, "--threads", "3"]) == 0
    folder = machine.results_folder("quality")
    head, _, table = (folder / "quality.md").read_text().partition("\n\n")
    assert head == f"> {machine.measured(3)}; tiny, 8 tokens in windows of 4."
    assert table == capsys.readouterr().out
    assert quality.main([*given, "--out", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other" / "quality.md").exists()
