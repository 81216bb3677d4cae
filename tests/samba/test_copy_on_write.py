"""Memory that a module and a session share until one of them writes to it."""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Callable

import pytest
import torch
from torch import nn

from bossa.samba.copy_on_write import divide
from bossa.samba.sections.device import Device

needs_files_in_memory = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has none")


def weight(dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.randn(300, 200).to(dtype))


def own_memory() -> int:
    """Bytes that are in memory for this process alone, or in files without a name."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))


@needs_files_in_memory
@pytest.mark.parametrize("make", [weight, lambda: weight(torch.bfloat16), lambda: nn.Parameter(weight().data.t())])
def test_each_of_two_tensors_keeps_what_it_had_when_the_other_is_written_to(make: Callable[[], nn.Parameter]):
    parameter = make()
    before, strides = parameter.detach().clone(), parameter.stride()
    other = divide(parameter)
    assert other is not None
    assert parameter.stride() == other.stride() == strides
    with torch.no_grad():
        parameter[7] = 3.0
        other[9] = 4.0
    assert torch.equal(parameter[9], before[9])
    assert torch.equal(other[7], before[7])
    assert (parameter[7] == 3.0).all()
    assert (other[9] == 4.0).all()
    saved = io.BytesIO()
    torch.save(parameter.data, saved)
    assert len(saved.getvalue()) < 1.1 * parameter.nbytes + 10_000
    assert torch.equal(torch.load(io.BytesIO(saved.getvalue())), parameter)


@pytest.mark.parametrize("looks", [lambda p: p.detach().numpy(), lambda p: p[2:], lambda p: p.data])
def test_memory_that_others_look_at_stays_where_it_is(looks: Callable[[nn.Parameter], object]):
    parameter = weight()
    view = looks(parameter)
    address = parameter.data_ptr()
    assert divide(parameter) is None
    assert parameter.data_ptr() == address
    del view
    assert divide(nn.Parameter(torch.ones(0))) is None
    assert divide(nn.Parameter(weight().data[:, :100])) is None


@needs_files_in_memory
def test_a_device_has_its_weights_once_with_the_module_and_each_its_own():
    model = nn.Sequential(nn.Linear(2000, 2000, bias=False), nn.Linear(2000, 2000, bias=False))
    expected = [parameter.detach().clone() for parameter in model.parameters()]
    device = Device(model, [], divides=True)
    size = 8 * 2000 * 2000
    assert all(map(torch.equal, device.parameters.values(), model.parameters()))
    before = own_memory()
    for _ in range(3):
        device.fetch(model)
        device.send(model)
        assert all(map(torch.equal, device.parameters.values(), expected))
        assert all(map(torch.equal, model.parameters(), expected))
    assert own_memory() - before < size // 4 + 100 * mmap.PAGESIZE
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(device.parameters["0.weight"], expected[0])
    device.fetch(model)
    assert torch.equal(model[0].weight, expected[0])
    with torch.no_grad():
        model[0].weight.zero_()
    device.send(model)
    assert not device.parameters["0.weight"].any()
    assert device.sent == 5
