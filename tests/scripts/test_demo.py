"""What the demo makes of predictions."""

from __future__ import annotations

import json
import os

import pytest

import demo

QUESTION = "REVIEW: so negative a film. QUESTION: Is this review positive or negative?\n\n"


@pytest.mark.parametrize(
    ("completion", "label"),
    [
        ("Positive.", "positive"),
        ("This review is negative, not positive.", "negative"),
        ("I liked it.", "neither"),
        ("", "neither"),
    ],
)
def test_the_answer_is_the_first_label_after_the_question(completion, label):
    assert demo.answer(QUESTION + completion) == label


def test_every_review_asks_the_question_and_has_a_label():
    records = [json.loads(line) for line in demo.REVIEWS.read_text(encoding="utf-8").splitlines()]
    assert len(records) == 20
    assert all(record["prompt"].endswith("QUESTION: Is this review positive or negative?\n\n") for record in records)
    assert {record["completion"] for record in records} == set(demo.LABELS)
    assert not any("-" * 20 in record["prompt"] for record in records)


def test_a_program_is_compiled_again_when_its_model_or_the_compiler_is_newer(tmp_path, monkeypatch):
    model, pef, source = tmp_path / "model.gguf", tmp_path / "x.pef", tmp_path / "src" / "bossa" / "passes.py"
    source.parent.mkdir(parents=True)
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    for path in (model, source):
        path.touch()
        os.utime(path, (100, 100))
    assert not demo.is_fresh(pef, model)
    pef.touch()
    assert demo.is_fresh(pef, model)
    for path in (model, source):
        os.utime(path, (2**32, 2**32))
        assert not demo.is_fresh(pef, model)
        os.utime(path, (100, 100))
