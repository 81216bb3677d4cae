"""Parameters made of a tensor, and parameters made when they are used."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from bossa.errors import SambaError
from bossa.samba.nn.parameter import SambaParameter


class Counting:
    """A materializer that says how often it ran."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values
        self.runs = 0

    def __call__(self, parameter: SambaParameter) -> torch.Tensor:
        self.runs += 1
        return self.values


def test_a_lazy_parameter_is_made_when_its_values_are_needed_and_once():
    values = torch.randn(3, 5)
    make = Counting(values.t())
    parameter = SambaParameter(shape=reversed(values.shape), dtype=torch.float32, materializer=make, requires_grad=True)
    assert isinstance(parameter, SambaParameter)
    assert isinstance(parameter, nn.Parameter)
    assert (parameter.shape, parameter.dtype, parameter.requires_grad) == ((5, 3), torch.float32, True)
    layer = nn.Linear(3, 5)
    layer.weight = parameter
    assert parameter in {parameter}
    assert make.runs == 0
    assert torch.equal(F.linear(torch.eye(3), parameter), values)
    assert next(layer.parameters()) is parameter
    assert parameter.stride() == (1, 5)
    layer(torch.ones(2, 3)).sum().backward()
    assert parameter.grad is not None
    assert make.runs == 1


def test_a_lazy_parameter_has_its_values_in_a_state_dict_and_takes_others():
    layer = nn.Linear(2, 2, bias=False)
    layer.weight = SambaParameter(shape=(2, 2), dtype=torch.bfloat16, materializer=lambda _: torch.eye(2))
    assert torch.equal(layer.state_dict()["weight"], torch.eye(2, dtype=torch.bfloat16))
    layer.weight = SambaParameter(shape=(2, 2), dtype=torch.float32, materializer=lambda _: torch.eye(2))
    layer.load_state_dict({"weight": torch.full((2, 2), 3.0)})
    assert torch.equal(layer.weight.torch_tensor(), torch.full((2, 2), 3.0))


def test_one_lazy_parameter_may_be_made_of_another():
    first = SambaParameter(shape=(2, 3), dtype=torch.float32, materializer=lambda _: torch.arange(6.0).view(2, 3))
    second = SambaParameter(
        shape=(3, 2), dtype=torch.float32, materializer=lambda _: first.torch_tensor().transpose(1, 0)
    )
    assert torch.equal(second.torch_tensor(), torch.arange(6.0).view(2, 3).t())


def test_torch_tensor_is_plain_and_shares_the_memory():
    parameter = SambaParameter(torch.zeros(2))
    plain = parameter.torch_tensor()
    assert type(plain) is torch.Tensor
    assert not plain.requires_grad
    plain += 1
    assert parameter.sum() == 2


def test_copies_keep_the_name_and_files_have_torchs_own_class():
    parameter = SambaParameter(torch.ones(2), requires_grad=False, name="w")
    parameter.mark = object()
    twin = copy.deepcopy(parameter)
    assert (type(twin), twin.sn_name, twin.requires_grad) == (SambaParameter, "w", False)
    file = io.BytesIO()
    torch.save(parameter, file)
    file.seek(0)
    assert type(torch.load(file)) is nn.Parameter


def test_what_cannot_be_made_is_refused_in_one_line():
    with pytest.raises(SambaError, match="of a tensor, or of a shape and a materializer"):
        SambaParameter(shape=(2, 2))
    wrong = SambaParameter(shape=(2, 3), dtype=torch.float32, materializer=lambda _: torch.ones(3, 2))
    with pytest.raises(SambaError, match=r"gave a tensor of shape \[3, 2\], and the parameter was made with \[2, 3\]"):
        wrong.sum()
