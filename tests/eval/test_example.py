"""Records with the completion that is wanted."""

from __future__ import annotations

from typing import Any

import pytest

from bossa.dataset import BadRecord, Record
from bossa.eval import Example, FieldNames, example

TURNS = [{"role": "user", "content": "good?"}, {"role": "assistant", "content": "yes"}]


def record(fields: dict[str, Any]) -> Record:
    return Record(3, "reviews.jsonl", 7, fields, fields.get("prompt", ""), fields.get("messages"))


def test_prompt_completion_and_id_are_those_of_the_record():
    found = example(record({"id": "a7", "prompt": "good?", "completion": "yes"}))
    assert found == Example(3, "reviews.jsonl", 7, "a7", "good?", "yes")


def test_a_record_without_an_id_has_its_place():
    found = example(record({"prompt": "good?", "label": "yes"}), names=FieldNames("label"))
    assert isinstance(found, Example)
    assert (found.id, found.reference) == (3, "yes")


def test_a_reference_is_a_choice_but_for_white_space():
    found = example(record({"prompt": "good?", "completion": " yes\n"}), ["no", " yes"])
    assert isinstance(found, Example)
    assert (found.choice, found.reference) == (1, " yes\n")


def test_the_last_message_of_an_assistant_is_the_reference_where_there_is_no_other():
    found = example(record({"messages": TURNS}))
    assert isinstance(found, Example)
    assert (found.prompt, found.reference) == (TURNS[:1], "yes")
    other = example(record({"messages": TURNS, "completion": "no"}))
    assert isinstance(other, Example)
    assert (other.prompt, other.reference) == (TURNS, "no")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt": "good?"}, 'the record has no "completion" to compare with'),
        ({"messages": TURNS[:1]}, 'the record has no "completion" to compare with'),
        ({"prompt": "good?", "completion": None}, 'the "completion" is null'),
        ({"prompt": "good?", "completion": 3}, 'the "completion" is not a text but 3'),
        ({"prompt": "good?", "completion": " \n"}, 'the "completion" is empty'),
        (
            {"prompt": "good?", "completion": "perhaps"},
            "the \"completion\" is 'perhaps', which is none of the choices: yes, no",
        ),
    ],
)
def test_what_cannot_be_compared_is_an_error_with_its_place(fields, reason):
    assert example(record(fields), ["yes", "no"]) == BadRecord(3, "reviews.jsonl", 7, reason, fields)
