"""Optimizers called by hand are torch's, with clipping before AdamW where it is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bossa import samba


def parameters(*gradients: float) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.ones(2)) for _ in gradients]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = torch.full((2,), gradient)
    return made


def test_sgd_takes_momentum_and_weight_decay_in_this_order():
    ours, theirs = parameters(0.5, 2.0), parameters(0.5, 2.0)
    optimizer = samba.optim.SGD(ours, 0.1, 0.9, 0.01)
    reference = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        optimizer.step()
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("clip", [None, 1.0, 100.0])
def test_adamw_clips_to_the_norm_over_its_own_parameters(clip: float | None):
    ours, theirs = parameters(3.0, 4.0), parameters(3.0, 4.0)
    optimizer = samba.optim.AdamW(ours, 0.1, (0.9, 0.997), 1e-8, 0.1, max_grad_norm=clip)
    other = samba.optim.AdamW(parameters(1000.0), lr=0.1, max_grad_norm=clip)
    reference = torch.optim.AdamW(theirs, lr=0.1, betas=(0.9, 0.997), eps=1e-8, weight_decay=0.1)
    for gradient in (3.0, 0.3):
        for parameter in [*ours, *theirs]:
            parameter.grad = torch.full((2,), gradient)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(theirs, clip)
        optimizer.step()
        other.step()
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_parameters_may_come_as_groups_or_as_an_ordered_set():
    first, second = parameters(1.0, 1.0)
    optimizer = samba.optim.AdamW(
        [{"params": [first], "weight_decay": 0.5}, {"params": [second]}], lr=0.1, weight_decay=0.0, max_grad_norm=1.0
    )
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    optimizer.step()
    assert isinstance(optimizer, torch.optim.Optimizer)


def test_states_load_from_torch_and_into_it():
    ours, theirs = parameters(1.0), parameters(1.0)
    optimizer = samba.optim.AdamW(ours, lr=0.1, max_grad_norm=1.0)
    reference = torch.optim.AdamW(theirs, lr=0.2)
    reference.step()
    optimizer.load_state_dict(reference.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.2
    assert optimizer.max_grad_norm == 1.0
    optimizer.step()
    reference.load_state_dict(optimizer.state_dict())
    assert reference.state[theirs[0]]["step"] == 2


def test_a_closure_is_called_once_and_its_loss_returned():
    weight = nn.Parameter(torch.ones(2))
    optimizer = samba.optim.AdamW([weight], lr=0.1, max_grad_norm=0.5)

    def closure() -> float:
        loss = weight.sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 2.0
    assert weight.grad is not None
    assert weight.grad.norm() == pytest.approx(0.5, abs=1e-5)
