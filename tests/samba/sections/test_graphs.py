"""Graphs of modules, run operator by operator, against the same modules in eager torch: nothing is compiled here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  as everyone calls it

from bossa.errors import CompileError
from bossa.samba.sections.device import Device
from bossa.samba.sections.executor import Backward, SectionExecutor
from bossa.samba.sections.partition import partition
from bossa.samba.sections.trace import trace


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal up to the order of sums, in the precision that they have."""
    tolerance = 2e-2 if theirs.dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def executor_of(model: nn.Module, inputs: Sequence[Any]) -> tuple[SectionExecutor, Device]:
    names = [f"x{number}" for number, value in enumerate(inputs) if isinstance(value, torch.Tensor)]
    graph = trace(model, inputs, names, joint=True)
    parts = partition(graph)
    device = Device(model, [])
    plan = Backward(parts.operands, parts.saved, parts.gradients, graph.tangents)

    def forward(values: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        return parts.forward(*values)

    def backward(values: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        return parts.backward(*values)

    return SectionExecutor(graph, device, forward, backward, plan), device


def compare(model: nn.Module, inputs: Sequence[Any], rate: float | None = None, seed: int = 7) -> None:
    """The first output and all gradients of its sum, of the graph and of eager torch."""
    theirs = copy.deepcopy(model)
    executor, device = executor_of(model, inputs)
    torch.manual_seed(seed)
    outputs = executor.forward([value for value in inputs if isinstance(value, torch.Tensor)], rate, alone=False)
    executor.backward({0: torch.ones_like(outputs[0])})
    torch.manual_seed(seed)
    result = theirs(*inputs)
    result = result[0] if isinstance(result, tuple) else result
    result.sum().backward()
    close(outputs[0], result.detach())
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    assert device.gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        close(device.gradients[name], gradient)
    for name, buffer in theirs.named_buffers():
        close(device.buffers[name], buffer)


class Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.project = nn.Linear(8, 24)
        self.options = options

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = self.project(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=0.3 if self.training else 0.0, **self.options)


class Calls(nn.Module):
    """A function of a linear layer's output."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.linear(x))


class MultiHead(nn.Module):
    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.4, batch_first=True)
        self.weights = weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=self.weights)[0]


IMAGES = torch.randn(2, 3, 8, 8)
ROWS = torch.randn(2, 5, 8)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()), IMAGES),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(0.5)), IMAGES),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)), IMAGES.contiguous(memory_format=torch.channels_last)),
        (nn.Sequential(nn.Linear(8, 6), nn.AlphaDropout(0.3), nn.SELU(), nn.FeatureAlphaDropout(0.2)), ROWS),
        (nn.LSTM(8, 6, 2, dropout=0.4, bidirectional=True, batch_first=True), ROWS),
        (nn.GRU(8, 6, 2, dropout=0.4), ROWS),
        (nn.RNN(8, 6, 2, dropout=0.4, nonlinearity="relu"), ROWS),
        (MultiHead(weights=True), ROWS),
        (MultiHead(weights=False), ROWS),
        (nn.TransformerEncoderLayer(8, 2, 16, 0.2, batch_first=True), ROWS),
        (Attention(is_causal=True), ROWS),
        (Attention(scale=0.3), ROWS),
        (Calls(lambda x: F.dropout(x, 0.5, inplace=True) * 2), ROWS),
        (Calls(lambda x: F.dropout(x, 1.0) + F.dropout(x, 0.0) + F.dropout(x, 0.1, training=False)), ROWS),
        (Calls(lambda x: F.dropout(x.transpose(0, 2), 0.5)), ROWS),
        (Calls(lambda x: F.dropout(x + torch.rand_like(x), 0.5) + torch.empty(8).bernoulli_(0.5)), ROWS),
    ],
)
def test_a_training_pass_draws_and_computes_what_eager_torch_does(model: nn.Module, x: torch.Tensor):
    compare(model, (x,))


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_attention_with_a_mask_drops_as_eager_torch_does(kind: torch.dtype):
    mask = torch.rand(5, 5) > 0.3
    compare(Attention(), (ROWS, mask if kind == torch.bool else mask.float()))


def test_a_rate_that_is_given_counts_for_every_dropout():
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), MultiHead(weights=True))
    rated = copy.deepcopy(model)
    rated[1].p = rated[2].attention.dropout = 0.6
    executor, _ = executor_of(model, (ROWS,))
    for rate, reference in ((None, model), (0.6, rated), (0.0, copy.deepcopy(model).eval())):
        torch.manual_seed(3)
        ours = executor.forward([ROWS], rate, alone=False)[0]
        torch.manual_seed(3)
        close(ours, reference(ROWS).detach())


def test_bfloat16_and_frozen_and_unused_and_tied_parameters():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 8)
            self.head = nn.Linear(8, 9, bias=False)
            self.head.weight = self.embed.weight
            self.norm = nn.LayerNorm(8)
            self.norm.weight.requires_grad_(False)
            self.unused = nn.Parameter(torch.ones(3))
            self.turned = nn.Parameter(torch.randn(8, 4).t().clone(memory_format=torch.preserve_format))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.embed(ids)) @ self.turned.t() @ self.turned)

    compare(Net(), (torch.arange(9).view(3, 3),))
    compare(Net().bfloat16(), (torch.arange(9).view(3, 3),))


def test_a_replaced_forward_no_grad_and_a_closed_over_tensor_count():
    model = Calls(lambda x: x)
    table = torch.randn(8)

    def forward(x: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        with torch.no_grad():
            scale = model.linear(x).mean()
        y = model.linear(x) * scale + table
        return y, {"first": y[0], "none": None, "again": y, "input": x}

    model.forward = forward
    executor, device = executor_of(model, (ROWS,))
    outputs = executor.forward([ROWS], None, alone=True)
    expected = forward(ROWS)[0]
    close(outputs[0], expected.detach())
    assert [output.shape for output in outputs] == [(2, 5, 8), (5, 8), (2, 5, 8), (2, 5, 8)]
    outputs[1].zero_()
    close(outputs[2], expected.detach())  # outputs have memory of their own
    executor.backward({0: torch.ones(2, 5, 8)})
    expected.sum().backward()
    close(device.gradients["linear.weight"], model.linear.weight.grad)


class Growing(nn.Module):
    """Appends to what is empty at first, as a cache of keys and values does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([torch.tensor([], dtype=x.dtype), self.layer(x)], dim=-2)
        return torch.cat([x, torch.full((1, 4), 2.0)], dim=-2)


def test_a_graph_has_the_same_inputs_with_gradients_and_without():
    model, x = Growing(), torch.randn(3, 4)
    compare(model, (x,))
    forward, joint = (trace(model, (x,), ["x"], joint=joint) for joint in (False, True))
    assert [argument.role for argument in forward.arguments] == [argument.role for argument in joint.arguments]


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = Calls(lambda x: x * 2 if x.sum() > 0 else x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gate(x)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Branching(), r"module gate \(Calls\) does what depends on the values of a tensor"),
        (Calls(lambda x: x @ torch.ones(3)), r"the model \(Calls\) cannot be traced"),
        (Calls(lambda x: torch.bernoulli(x.sigmoid())), "from a distribution that depends on values"),
        (Calls(lambda x: None), "returns no tensor"),
    ],
)
def test_what_cannot_be_traced_is_named_in_one_line(model: nn.Module, reason: str):
    with pytest.raises(CompileError, match=reason) as caught:
        trace(model, (ROWS,), ["x"])
    assert "\n" not in str(caught.value)
