"""Convolutions along the rows, however a model writes them: recognised where they are causal, refused where not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import pad

from bossa.errors import CompileError
from bossa.frontend.importer import import_module
from bossa.ir.interpret import interpret
from bossa.ops import CausalConv

WIDTH, VOCABULARY, LENGTH = 6, 11, 32


class Model(nn.Module):
    """An embedding, one way to mix rows, and a head."""

    def __init__(self, mix: Any, **options: Any) -> None:
        super().__init__()
        self.mix = mix
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.conv = nn.Conv1d(WIDTH, WIDTH, **{"kernel_size": 3, "groups": WIDTH, **options})
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, input_ids: torch.Tensor) -> Any:
        x = self.embed(input_ids).transpose(1, 2)  # [1, C, T]
        return SimpleNamespace(logits=self.head(self.mix(self.conv, x).transpose(1, 2)))


CAUSAL = {
    "padded by the layer, and cut": (lambda conv, x: conv(x)[..., : x.shape[-1]], {"padding": 2}),
    "cut from the end": (lambda conv, x: conv(x)[:, :, :-2], {"padding": 2, "bias": False}),
    "padded before": (lambda conv, x: conv(pad(x, (2, 0))), {}),
    "padded on both sides, and cut": (lambda conv, x: conv(pad(x, (2, 3)))[..., : x.shape[-1]], {}),
    "dilated": (lambda conv, x: conv(pad(x, (6, 0))), {"dilation": 3}),
    "late": (lambda conv, x: conv(pad(x, (5, 0)))[..., : x.shape[-1]], {}),
    "of one tap": (lambda conv, x: conv(x), {"kernel_size": 1}),
    "written as a product": (lambda conv, x: torch.tanh(conv(x)[..., : x.shape[-1]]) * x, {"padding": 2}),
}


@pytest.mark.parametrize("how", CAUSAL)
def test_a_causal_one_is_right(how: str):
    torch.manual_seed(0)
    mix, options = CAUSAL[how]
    model = Model(mix, **options).eval()
    program = import_module(model, lambda module, ids: module(ids).logits, name="conv", max_seq_length=LENGTH).program
    assert how == "of one tap" or any(isinstance(op, CausalConv) for op in program.body)
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    weights = {slot.name: state[slot.sources[0].names[0]].reshape(slot.shape) for slot in program.slots.values()}
    sequences = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 3, 5], [7], [2, 2]]
    got = interpret(program, weights, sequences)
    wanted = np.concatenate([model(torch.tensor([ids])).logits[0].detach().numpy() for ids in sequences])
    np.testing.assert_allclose(got, wanted, atol=2e-6)


REFUSED = {
    "sees later rows": (lambda conv, x: conv(x), {"padding": 1}, "rows that come later"),
    "later by the cut": (lambda conv, x: conv(x)[..., 1 : x.shape[-1] + 1], {"padding": 2}, "rows that come later"),
    "mixes channels": (lambda conv, x: conv(x)[..., : x.shape[-1]], {"padding": 2, "groups": 1}, "mixes channels"),
    "moves rows": (lambda conv, x: pad(x, (1, 0))[..., : x.shape[-1]], {}, "moves rows"),
    "ones for zeros": (lambda conv, x: conv(pad(x, (2, 0), value=1.0)), {}, "other than by zeros"),
    "used as it is": (lambda conv, x: conv(x).tanh()[..., : x.shape[-1]], {"padding": 2}, "otherwise than cut"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_no_causal_convolution_is_refused(how: str):
    mix, options, why = REFUSED[how]
    with pytest.raises(CompileError, match=why):
        import_module(
            Model(mix, **options).eval(), lambda module, ids: module(ids).logits, name="conv", max_seq_length=LENGTH
        )
