"""Named tensors behave as torch's, and become torch's."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from bossa import samba
from bossa.errors import SambaError


def test_a_name_stays_through_casts_and_copies_and_not_through_arithmetic():
    x = samba.randn(3, 4, name="image", batch_dim=0)
    for same in (x.bfloat16().float(), x.int(), x.to(torch.float64), x.clone(), x.contiguous(), copy.deepcopy(x)):
        assert isinstance(same, samba.SambaTensor)
        assert (same.sn_name, same.batch_dim) == ("image", 0)
    assert (x + 1).sn_name is None


def test_torch_works_on_a_named_tensor_as_on_its_own():
    plain = torch.arange(12.0).reshape(3, 4) - 5
    x = samba.from_torch_tensor(plain, name="x")
    assert x.shape == torch.Size([3, 4])
    assert type(x.shape) is torch.Size
    assert x.dtype is torch.float32
    assert torch.equal(x + x * 2, plain * 3)
    assert torch.equal(x[1], plain[1])
    assert torch.equal(x[:, 1:3], plain[:, 1:3])
    assert torch.equal(x[x > 0], plain[plain > 0])
    assert torch.equal(torch.softmax(x, -1), torch.softmax(plain, -1))
    assert torch.equal(torch.cat([x, plain]), torch.cat([plain, plain]))
    assert f"{x[2, 3]:.2f}" == "6.00"


def test_from_torch_tensor_takes_expanded_and_non_contiguous_tensors_and_gives_another_object():
    positions = torch.arange(4).short().unsqueeze(0).expand(3, 4)
    named = samba.from_torch_tensor(positions, name="positions")
    assert named.stride() == (0, 1)
    assert torch.equal(samba.to_torch(named), positions)
    assert samba.from_torch_tensor(torch.ones(2, 3).t(), name="t").shape == (3, 2)
    other = samba.from_torch_tensor(named, name="other")
    assert (named.sn_name, other.sn_name) == ("positions", "other")


def test_to_torch_gives_exactly_a_torch_tensor_that_may_be_written():
    x = samba.randn(3, name="x").requires_grad_()
    plain = samba.to_torch(x * 2)
    assert type(plain) is torch.Tensor
    assert not plain.requires_grad
    plain *= 0
    assert plain.sum() == 0
    assert f"{samba.to_torch(x.sum()):.3f}" == f"{x.detach().sum().item():.3f}"
    same = torch.ones(2)
    assert samba.to_torch(same) is same
    assert type(samba.to_torch(torch.nn.Parameter(same))) is torch.Tensor


def test_torch_tensor_is_plain_and_keeps_the_gradient():
    x = samba.randn(3, name="x").requires_grad_()
    plain = x.torch_tensor()
    assert type(plain) is torch.Tensor
    plain.sum().backward()
    assert torch.equal(samba.to_torch(x.grad), torch.ones(3))


def test_a_gradient_to_start_from_belongs_to_one_tensor():
    x = samba.randn(3, name="x")
    x.sn_grad = torch.ones(3)
    assert x.sn_grad.shape == (3,)
    assert samba.randn(3).sn_grad is None
    assert x.float().sn_grad is not None  # the same object: nothing to cast
    assert x.half().sn_grad is None


def test_a_named_tensor_is_saved_as_a_plain_one():
    file = io.BytesIO()
    x = samba.randn(3, name="x")
    torch.save({"x": x}, file)
    file.seek(0)
    loaded = torch.load(file)["x"]
    assert type(loaded) is torch.Tensor
    assert torch.equal(loaded, x)


def test_random_tensors_have_the_types_that_torch_gives_them():
    labels = samba.randint(10, (5,), name="label", batch_dim=0)
    assert (labels.dtype, labels.sn_name, labels.batch_dim) == (torch.int64, "label", 0)
    assert labels.max() < 10
    torch.manual_seed(0)
    x = samba.randn(2, 3, name="x")
    torch.manual_seed(0)
    assert torch.equal(x, torch.randn(2, 3))
    assert samba.randn((2, 3)).shape == (2, 3)


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_addmm_is_a_product_over_the_last_dimension(rank: int):
    x = torch.randn(2, 3, 4, 5)[(0,) * (4 - rank)]
    weight, bias = torch.randn(5, 7), torch.randn(7)
    expected = x @ weight + bias
    # the sums may be taken in another order
    torch.testing.assert_close(samba.addmm(bias, x, weight), expected)
    torch.testing.assert_close(samba.addmm(bias, x, weight.t(), is_transposed=True), expected)


def test_what_is_no_tensor_is_refused_in_one_line():
    with pytest.raises(SambaError, match=r"from_torch_tensor takes a torch\.Tensor, not list"):
        samba.from_torch_tensor([1, 2])  # type: ignore[arg-type]
    with pytest.raises(SambaError, match="to_torch takes a tensor, not float"):
        samba.to_torch(1.0)  # type: ignore[arg-type]
