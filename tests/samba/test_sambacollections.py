"""Sets with an order, of anything that can be in a dict."""

from __future__ import annotations

import torch
from torch import nn

from bossa import samba
from bossa.samba.sambacollections import OrderedSet


def test_elements_come_out_in_the_order_in_which_they_came():
    elements = OrderedSet([3, 1, 3, 2])
    assert list(elements) == [3, 1, 2]
    elements.add(1)
    elements.update([5, 4], [0])
    elements.discard(2)
    elements.discard(99)
    assert list(elements) == [3, 1, 5, 4, 0]
    assert (len(elements), 5 in elements, 2 in elements) == (5, True, False)
    assert list(elements | [7]) == [3, 1, 5, 4, 0, 7]
    assert elements == {0, 1, 3, 4, 5}
    assert repr(OrderedSet("ab")) == "OrderedSet(['a', 'b'])"


def test_parameters_are_sorted_into_optimizers_by_identity():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte = nn.Embedding(5, 3)
            self.ln = nn.LayerNorm(3)
            self.head = nn.Linear(3, 5, bias=False)
            self.head.weight = self.wte.weight
            self.twin = nn.Linear(3, 3)
            self.twin.weight.data = torch.eye(3)

    model = samba.from_torch_model_(Tied())
    embeddings = OrderedSet(model.wte.parameters())
    others = OrderedSet([(name, x) for name, x in model.named_parameters() if x not in embeddings])
    assert [name for name, _ in others] == ["ln.weight", "ln.bias", "twin.weight", "twin.bias"]
    optimizer = samba.optim.AdamW(embeddings, lr=0.1)
    assert optimizer.param_groups[0]["params"][0] is model.head.weight
