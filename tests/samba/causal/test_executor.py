"""Runs of a causal language model against the module in eager torch; its program is a patched GPT-2's or a Llama's."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import pytest
import torch

from bossa import samba
from bossa.errors import RequestError
from bossa.samba.sections.executor import SectionExecutor
from samba.causal.models import LENGTH, eager, examples_of, ids_of, inputs_of, llama, mask_of, patched_gpt2

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
"""Of logits of some ones: fp32 sums in another order."""


class Traced:
    """A model in a session, with the number of calls that the traced sections served and rows that were computed."""

    def __init__(self, model: Any, pef: str, sequences: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = samba.from_torch_model_(model)
        self.outputs = samba.utils.trace_graph(self.model, examples_of(model, sequences), pef=pef)
        self.by_sections = 0
        forward = SectionExecutor.run_forward

        def counted(*arguments: Any) -> Any:
            self.by_sections += 1
            return forward(*arguments)

        monkeypatch.setattr(SectionExecutor, "run_forward", counted)

    def run(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor | None = None,
        rate: float | None = 0.0,
    ) -> torch.Tensor:
        given = {} if rate is None else {"p": rate}
        inputs = inputs_of(self.model, ids, mask, positions)
        return samba.to_torch(samba.session.run(inputs, self.outputs, given, ["fwd"])[0])

    def check(self, *rows: list[int]) -> torch.Tensor:
        """Runs sequences, compares all of their rows, and returns the result."""
        ids, mask = ids_of(*rows), mask_of(*map(len, rows))
        found, expected = self.run(ids, mask), eager(self.model, ids, mask)
        assert found.shape == expected.shape
        for number, row in enumerate(rows):
            torch.testing.assert_close(found[number, : len(row)], expected[number, : len(row)], **TOLERANCE)
            assert not found[number, len(row) :].any()
        return found


@pytest.fixture
def one(patched_pef: str, monkeypatch: pytest.MonkeyPatch) -> Traced:
    torch.manual_seed(4)
    return Traced(patched_gpt2(), patched_pef, 1, monkeypatch)


@pytest.fixture
def two(llama_pef: str, monkeypatch: pytest.MonkeyPatch) -> Traced:
    torch.manual_seed(5)
    return Traced(llama(), llama_pef, 2, monkeypatch)


def steps_of(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each step of the native program from now on."""
    program = samba.session._current.executors[0]._sequences._program
    rows: list[int] = []
    step = program.step

    def counted(tokens: Any, *others: Any, **more: Any) -> Any:
        rows.append(len(tokens))
        return step(tokens, *others, **more)

    monkeypatch.setattr(program, "step", counted)
    return rows


def test_a_growing_sequence_computes_its_new_rows_alone(one: Traced, monkeypatch: pytest.MonkeyPatch):
    sequence = [3, 14, 15, 92, 65]
    one.check(*[sequence])
    rows = steps_of(one, monkeypatch)
    for token in (35, 89, 79):
        sequence.append(token)
        one.check(sequence)
    one.check(sequence)
    assert rows == [1, 1, 1]
    assert one.by_sections == 0


def test_a_sequence_that_shrinks_changes_or_begins_anew_is_right(one: Traced, monkeypatch: pytest.MonkeyPatch):
    one.check(list(range(1, 21)))
    rows = steps_of(one, monkeypatch)
    one.check(list(range(1, 8)))
    one.check([*range(1, 8), 50, 51])
    one.check([*range(1, 5), 60, 61])
    one.check([7, 8])
    one.check(list(range(LENGTH)))
    one.check([])
    assert rows == [2, 2, 2, LENGTH]
    assert one.by_sections == 0


def test_ids_behind_the_end_mean_nothing(one: Traced, monkeypatch: pytest.MonkeyPatch):
    first = one.check([5, 6, 7])
    rows = steps_of(one, monkeypatch)
    ids = ids_of([5, 6, 7])
    ids[:, 3:] = torch.randint(0, 90, (1, LENGTH - 3))
    positions = torch.zeros(1, LENGTH, dtype=torch.int16)
    positions[0, :3] = torch.arange(3)
    assert torch.equal(one.run(ids, mask_of(3), positions), first)
    assert rows == []


def test_results_stay_as_they_are_whatever_runs_later(one: Traced):
    sequence = [11, 12, 13, 14]
    held = []
    for token in (20, 21, 22):
        held.append(one.check(sequence))
        sequence.append(token)
    copies = [result.clone() for result in held]
    one.check([11, 12, 40])
    one.check([1])
    one.check(list(range(30)))
    assert all(torch.equal(result, copy) for result, copy in zip(held, copies, strict=True))


def test_what_a_program_writes_to_a_result_is_in_no_later_one(one: Traced):
    sequence = list(range(1, 30))
    one.check(sequence).fill_(7.0)
    one.check(sequence).numpy()[:] = np.nan
    result = one.check([*sequence, 3])
    result[:, 2:5].zero_()
    assert result.is_contiguous()
    one.check([*sequence, 3, 4])


def test_other_masks_and_positions_are_the_traced_sections(one: Traced):
    ids = ids_of(list(range(1, 11)))
    one.check(list(range(1, 11)))
    left = torch.zeros(1, LENGTH)
    left[..., LENGTH - 10 :] = 1
    hole = mask_of(10).clone()
    hole[..., 4] = 0
    shifted = torch.arange(LENGTH).short().roll(3)[None]
    for served, (mask, positions) in enumerate([(left, None), (hole, None), (mask_of(10), shifted)]):
        found = one.run(ids, mask, positions)
        assert one.by_sections == served + 1
        seen = mask[0].bool()
        torch.testing.assert_close(found[0, seen], eager(one.model, ids, mask, positions)[0, seen], **TOLERANCE)
    one.check(list(range(1, 12)))
    assert one.by_sections == 3


def test_dropout_is_not_left_out(one: Traced):
    ids, mask = ids_of(list(range(1, 11))), mask_of(10)
    torch.manual_seed(1)
    found = one.run(ids, mask, rate=0.5)
    torch.manual_seed(2)
    assert not torch.allclose(one.run(ids, mask, rate=0.5), found)
    torch.manual_seed(1)
    assert torch.equal(one.run(ids, mask, rate=0.5), found)
    assert not torch.allclose(one.run(ids, mask, rate=None), one.check(list(range(1, 11))))


def test_new_weights_count_once_they_are_sent(one: Traced):
    sequence = [9, 8, 7, 6]
    before = one.check(sequence)
    one.model.load_state_dict(patched_gpt2().state_dict())
    assert torch.equal(one.run(ids_of(sequence), mask_of(4)), before)
    samba.session.to_rdu(one.model)
    assert not torch.allclose(one.check(sequence), before)
    samba.session.to_cpu(one.model)
    one.check([*sequence, 5])
    assert one.by_sections == 0


def test_weights_that_are_not_finite_are_the_traced_sections(one: Traced):
    one.check([1, 2])
    before = one.model.transformer.wte.weight.detach().clone()
    with torch.no_grad():
        one.model.transformer.wte.weight[90] = torch.nan
    samba.session.to_rdu(one.model)
    assert one.run(ids_of([1, 2]), mask_of(2))[0, 0, 90].isnan()
    assert one.by_sections == 1
    with torch.no_grad():
        one.model.transformer.wte.weight.copy_(before)
    samba.session.to_rdu(one.model)
    one.check([1, 2])
    assert one.by_sections == 1


def test_each_sequence_of_a_batch_grows_by_itself(two: Traced, monkeypatch: pytest.MonkeyPatch):
    first, second = list(range(1, 20)), list(range(30, 35))
    two.check(first, second)
    rows = steps_of(two, monkeypatch)
    held = two.check([*first, 7], [*second, 8, 9])
    copy = held.clone()
    two.check([*first, 7], [*second, 8, 10, 11])
    two.check(list(range(50, 50 + LENGTH)), [*second, 8, 10, 11])
    two.check([], [*second, 8])
    assert rows == [3, 2, LENGTH]
    assert two.by_sections == 0
    assert torch.equal(held, copy)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_that_it_has_a_copy(one: Traced):
    one.check([1, 2])
    inputs = inputs_of(one.model, ids_of([1, 2]), mask_of(2), None)
    child = os.fork()
    if child == 0:
        try:
            samba.session.run(inputs, one.outputs, {"p": 0.0}, ["fwd"])
        except RequestError as error:
            os._exit(7 if "was forked from it without its threads" in str(error) else 8)
        os._exit(9)
    deadline = time.monotonic() + 20
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 7
    one.check([1, 2, 3])
