"""int16 and int32 are embedding indices and class targets, traced and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from bossa import samba
from bossa.samba.indices import accepting_short_indices


class Classifier(nn.Module):
    """Embeds tokens and positions, and takes the loss of each token as language models do."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(classes, 8)
        self.positions = nn.Embedding(16, 8)
        self.head = nn.Linear(8, classes)

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.head(self.tokens(ids) + self.positions(positions))
        loss = nn.CrossEntropyLoss(reduction="none")(logits.view(-1, logits.size(-1)), labels.view(-1))
        return loss, logits


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(40_000, (2, 16), generator=generator)
    labels = torch.randint(40_000, (2, 16), generator=generator)
    labels[:, 0] = 39_999  # above 32,767: another number as int16
    labels[:, -1] = -100
    return ids, torch.arange(16).expand(2, 16), labels


@pytest.mark.parametrize("named", [False, True])
def test_a_converted_module_called_by_hand_takes_short_integers(
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor], named: bool
):
    torch.manual_seed(0)
    model = samba.from_torch_model_(Classifier(40_000))
    ids, positions, labels = batch
    expected, _ = model(ids, positions, labels)
    short = (ids.int(), positions.short(), labels.short())
    if named:
        short = tuple(samba.from_torch_tensor(x, name=f"x{i}") for i, x in enumerate(short))
    loss, _ = model(*short)
    assert torch.equal(loss, expected)
    assert loss[15] == 0
    assert loss[0] > 0
    loss, _ = model(ids.int(), positions=positions.int(), labels=labels.int())
    assert torch.equal(loss, expected)


def test_a_module_that_fails_leaves_torch_as_it_was():
    model = samba.from_torch_model_(Classifier(10))
    ids = torch.zeros(1, 4, dtype=torch.int16)
    with pytest.raises(RuntimeError):
        model(ids, torch.zeros(3, 3, dtype=torch.int16), ids)
    with pytest.raises(RuntimeError):  # torch itself takes no int16
        F.embedding(ids, torch.ones(3, 3))


def test_the_tracing_mode_accepts_them_in_any_code():
    weight, ids = torch.randn(50, 4), torch.tensor([1, 2, 49])
    with accepting_short_indices():
        assert torch.equal(F.embedding(ids.short(), weight), weight[ids])
        logits = torch.randn(3, 50)
        assert torch.equal(F.cross_entropy(logits, ids.short()), F.cross_entropy(logits, ids))
        assert torch.equal(F.nll_loss(logits, target=ids.int()), F.nll_loss(logits, ids))
        ignored = torch.tensor([1, -1, 49])
        assert torch.equal(
            F.cross_entropy(logits, ignored.short(), ignore_index=-1), F.cross_entropy(logits, ignored, ignore_index=-1)
        )
        assert F.cross_entropy(logits, torch.softmax(logits, -1)).ndim == 0  # targets may be probabilities


def test_a_converted_module_can_be_compiled_and_exported():
    model = samba.from_torch_model_(Classifier(10))
    x = torch.zeros(1, 4, dtype=torch.int64)
    program = torch.export.export(model, (x, x, x))
    assert torch.equal(program.module()(x, x, x)[1], model(x, x, x)[1])
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, x, x)[1], model(x, x, x)[1])
