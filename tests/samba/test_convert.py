"""A module is converted in place and stays what it was."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from bossa import samba
from bossa.errors import SambaError
from bossa.samba.nn.parameter import SambaParameter


class Tied(nn.Module):
    """Two modules with one weight, one non-contiguous parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.state = {"steps": 0}
        self.embedding = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight
        self.mix = nn.Parameter(torch.randn(4, 3).t())
        self.register_buffer("scale", torch.ones(4))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(ids) @ self.mix.t() @ self.mix * self.scale)


def test_objects_classes_attributes_ties_and_layouts_survive():
    model = Tied()
    mix, weight, scale, before = model.mix, model.head.weight, model.scale, set(model.parameters())
    assert samba.from_torch_model_(model) is model
    assert type(model) is Tied
    assert model.state == {"steps": 0}
    assert model.head.weight is model.embedding.weight is weight
    assert model.mix is mix
    assert model.mix.stride() == (1, 3)
    assert set(model.parameters()) == before
    assert all(isinstance(parameter, SambaParameter) for parameter in model.parameters())
    assert model.scale is scale
    assert type(model.scale) is torch.Tensor


def test_parameters_are_named_after_their_place():
    model = nn.Sequential()
    model.add_module("lin_layer", nn.Linear(2, 2))
    samba.from_torch_model_(model)
    assert [parameter.sn_name for parameter in model.parameters()] == ["lin_layer__weight", "lin_layer__bias"]
    samba.from_torch_(model, parent_module_prefix="encoder")
    assert model.lin_layer.weight.sn_name == "encoder__lin_layer__weight"
    assert samba.from_torch_model_(Tied()).head.weight.sn_name == "embedding__weight"


def test_an_optimizer_of_before_goes_on_with_the_same_parameters():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    samba.from_torch_model_(model)
    before = model.weight.detach().clone()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, before)


def test_states_go_to_files_and_back_to_plain_torch():
    torch.manual_seed(0)
    model = samba.from_torch_model_(Tied())
    optimizer = samba.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    loaded = torch.load(file)  # weights_only: no class of ours in it
    assert {type(value) for value in loaded["model"].values()} == {torch.Tensor}
    plain = Tied()
    plain.load_state_dict(loaded["model"])
    torch.optim.AdamW(plain.parameters()).load_state_dict(loaded["optimizer"])
    assert torch.equal(plain(torch.tensor([3])), model(torch.tensor([3])))
    model.load_state_dict(Tied().state_dict())
    assert model.head.weight is model.embedding.weight
    assert isinstance(model.mix, SambaParameter)


def test_a_lazy_parameter_stays_lazy_and_gets_its_name():
    model = nn.Linear(2, 2, bias=False)
    runs = []
    model.weight = SambaParameter(
        shape=(2, 2), dtype=torch.float32, materializer=lambda _: runs.append(1) or torch.eye(2)
    )
    samba.from_torch_model_(model)
    assert model.weight.sn_name == "weight"
    assert not runs
    assert torch.equal(model(torch.eye(2)), torch.eye(2))


def test_what_cannot_be_converted_is_named():
    with pytest.raises(SambaError, match=r"takes a torch\.nn\.Module, not Tensor"):
        samba.from_torch_model_(torch.ones(2))  # type: ignore[type-var]
    with pytest.raises(SambaError, match="weight is an UninitializedParameter"):
        samba.from_torch_model_(nn.LazyLinear(3))
