"""A model with layers that keep recurrent state: the same bits however its requests are run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bossa
from support import zoo

pytestmark = pytest.mark.end_to_end

PROMPTS = [np.random.default_rng(seed).integers(3, 60, length).tolist() for seed, length in enumerate((5, 33, 40, 12))]
SYSTEM = np.random.default_rng(9).integers(3, 60, 37).tolist()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    folder = tmp_path_factory.mktemp("lfm2")
    zoo.build(zoo.MODELS["lfm2"].config()).save_pretrained(folder)
    pef = bossa.compile(zoo.MODELS["lfm2"].config(), precision="int8", max_seq_length=zoo.LENGTH, batch_size=4)
    assert pef.manifest.state_bytes > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOSSA_CACHE", str(folder / "cache"))
        yield pef, folder


def tokens(completions: Any) -> list[list[int]]:
    return [list(completion.token_ids) for completion in completions]


@pytest.fixture(scope="module")
def alone(model: tuple[Any, Path]) -> list[list[int]]:
    """What each prompt gives by itself, each from a state of its own."""
    found = []
    for prompt in PROMPTS:
        with bossa.load(model[0], weights=model[1], threads=1, batch_size=1) as lm:
            found += tokens(lm.generate([prompt], max_new_tokens=20, ignore_eos=True))
    return found


@pytest.mark.parametrize("options", [{}, {"speculate": 5}, {"logprobs": 1}], ids=["plain", "drafts", "logprobs"])
def test_a_batch_gives_what_each_gives_alone(model: tuple[Any, Path], alone: list[list[int]], options: dict[str, Any]):
    with bossa.load(model[0], weights=model[1], threads=2) as lm:
        for _ in range(2):  # the second time from what the first has left
            assert tokens(lm.generate(PROMPTS, max_new_tokens=20, ignore_eos=True, **options)) == alone


def test_guesses_that_are_right_and_wrong_leave_the_state_right(model: tuple[Any, Path]):
    """A text that repeats itself, so that some guesses hold and others do not."""
    prompt = [7, 8, 9, 10, 11, 7, 8, 9, 10, 11, 7, 8, 9]
    with bossa.load(model[0], weights=model[1], threads=2) as lm:
        plain = tokens(lm.generate([prompt], max_new_tokens=40, ignore_eos=True))
        for guesses in (1, 3, 8, 20):
            assert tokens(lm.generate([prompt], max_new_tokens=40, ignore_eos=True, speculate=guesses)) == plain


def test_steps_of_few_rows_cut_prompts_anywhere(
    model: tuple[Any, Path], alone: list[list[int]], monkeypatch: pytest.MonkeyPatch
):
    for rows in (1, 7, 16):
        monkeypatch.setattr("bossa.runtime.memory.ROWS_OF_A_STEP", max(rows, 4))
        monkeypatch.setattr("bossa.runtime.memory.FEWEST_ROWS", rows)
        with bossa.load(model[0], weights=model[1], threads=2) as lm:
            assert tokens(lm.generate(PROMPTS, max_new_tokens=20, ignore_eos=True)) == alone


def test_preempted_sequences_are_computed_again_to_the_same_tokens(model: tuple[Any, Path], alone: list[list[int]]):
    """With memory for little more than one sequence, the younger ones give their pages back."""
    manifest = model[0].manifest
    from bossa.runtime.memory import fixed

    memory = fixed(manifest, 16, 4) + 3 * manifest.page_bytes + 12 * manifest.state_bytes
    with bossa.load(model[0], weights=model[1], threads=2, memory=memory) as lm:
        assert tokens(lm.generate(PROMPTS, max_new_tokens=20, ignore_eos=True)) == alone


def test_shared_beginnings_and_turns_change_no_bit(model: tuple[Any, Path]):
    asked = [[*SYSTEM, 3, 4, last] for last in (5, 6, 7, 8)]
    wanted = []
    for prompt in asked:
        with bossa.load(model[0], weights=model[1], threads=1, batch_size=1) as lm:
            wanted.append(lm.logits(prompt))
    with bossa.load(model[0], weights=model[1], threads=2) as lm:
        lm.generate([SYSTEM], max_new_tokens=1)
        for prompt, logits in zip(asked, wanted, strict=True):
            (answer,) = tokens(lm.generate([prompt], max_new_tokens=4, ignore_eos=True))
            np.testing.assert_array_equal(lm.logits(prompt), logits)
            again = prompt + answer + [9]  # the next turn begins with all of this one
            np.testing.assert_array_equal(lm.logits(again)[: len(prompt)], logits)
