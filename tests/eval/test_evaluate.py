"""Examples through a toy model that goes on with the alphabet: what comes of each, and that batches fill."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from bossa.dataset import BadRecord, Record
from bossa.dataset.arrival import AtHand
from bossa.eval import Settings, evaluate
from bossa.language_model import LanguageModel
from support.toys import LETTERS, toy_model

RIGHT = 1 - math.log(math.e + len(LETTERS) - 1)
"""The log probability of the letter that comes next."""
WRONG = -math.log(math.e + len(LETTERS) - 1)


@pytest.fixture
def model() -> Iterator[LanguageModel]:
    with toy_model(batch_size=4) as made:
        yield made


def records(*pairs: tuple[str, str]) -> AtHand[Any]:
    return AtHand(
        iter(Record(i, "x.jsonl", i + 1, {"completion": answer}, prompt) for i, (prompt, answer) in enumerate(pairs))
    )


def run(model: LanguageModel, source: Any, **settings: Any):
    return evaluate(model, source, lambda example: model.encode(example.prompt), Settings(**settings))


def test_references_are_scored_and_answers_generated(model):
    found = run(model, records(("abc", "de"), ("abc", "dd"), ("xy", "z")))
    assert [outcome.log_likelihood for outcome in found.outcomes] == pytest.approx([2 * RIGHT, RIGHT + WRONG, RIGHT])
    assert [outcome.tokens for outcome in found.outcomes] == [2, 2, 1]
    # One token more than the reference: an answer that goes on is not it, and one that ends there is.
    assert [outcome.generated for outcome in found.outcomes] == ["def", "def", "z"]
    assert [outcome.is_exact for outcome in found.outcomes] == [False, False, True]


def test_choices_are_the_sums_of_the_log_probabilities_of_their_tokens(model):
    found = run(model, records(("abc", "dd"), ("c", "de")), choices=("de", "dd", "x"), exact_match=False)
    assert [outcome.example.choice for outcome in found.outcomes] == [1, 0]
    for outcome in found.outcomes:
        assert outcome.choices == pytest.approx((2 * RIGHT, RIGHT + WRONG, WRONG))
        assert outcome.generated is None
        [chosen] = model.choose([outcome.example.prompt], ["de", "dd", "x"])
        assert list(outcome.choices) == chosen.logprobs  # to the bit: the same logits and the same sums
        assert outcome.log_likelihood == model.score(outcome.example.prompt, outcome.example.reference)


def test_the_end_behind_a_choice_that_begins_another_counts_for_it_and_not_for_the_reference(model):
    [outcome] = run(model, records(("abc", "d")), choices=("d", "de"), exact_match=False).outcomes
    assert outcome.choices == pytest.approx((RIGHT + WRONG, 2 * RIGHT))
    assert outcome.log_likelihood == pytest.approx(RIGHT)


def test_a_reference_with_white_space_around_a_choice_is_scored_as_it_is(model):
    [outcome] = run(model, records(("abc", " d")), choices=("d", "x"), exact_match=False).outcomes
    assert outcome.choices == pytest.approx((RIGHT, WRONG))
    assert outcome.log_likelihood == pytest.approx(2 * WRONG)


def test_what_cannot_be_evaluated_is_an_error_and_the_rest_go_on(model):
    pairs = [("abc", "d"), ("a" * 31, "bc"), ("a" * 31, "b"), ("xy", "")]
    found = run(model, records(*pairs))
    assert [outcome.example.index for outcome in found.outcomes] == [0, 2]
    assert [(error.index, error.line) for error in found.errors] == [(1, 2), (3, 4)]
    assert "33 tokens, and at most 32 fit" in found.errors[0].reason


def test_a_bad_record_keeps_its_reason(model):
    bad = BadRecord(0, "x.jsonl", 1, "not JSON")
    assert run(model, AtHand(iter([bad]))).errors == [bad]


def test_records_are_many_at_a_time_and_come_back_in_order(model):
    pairs = [("abcdefgh"[: 1 + i % 8], "x") for i in range(40)]
    sizes: list[int] = []
    step = model.engine.program.step

    def counted(tokens: Any, positions: Any, starts: Any, *rest: Any) -> Any:
        sizes.append(len(starts) - 1)
        return step(tokens, positions, starts, *rest)

    model.engine.program.step = counted  # type: ignore[method-assign]
    found = run(model, records(*pairs))
    assert [outcome.example.index for outcome in found.outcomes] == list(range(40))
    assert sum(sizes) / len(sizes) > 3


def test_choices_of_equal_tokens_are_run_once_and_pages_of_the_prompt_are_shared(model):
    rows: list[int] = []
    step = model.engine.program.step

    def counted(tokens: Any, *rest: Any) -> Any:
        rows.append(len(tokens))
        return step(tokens, *rest)

    model.engine.program.step = counted  # type: ignore[method-assign]
    prompt = "abcdefghijkl"  # three pages
    run(model, records((prompt, "m")), choices=("m", "n"))
    # The prompt once, one row of it again for the other choice and for the answer, and the answer's second row.
    assert sum(rows) <= len(prompt) + 3 * model.engine.program.page_size + 2
