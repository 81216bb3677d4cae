"""Other kinds of modules, compiled, against eager torch: a step with AdamW each."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bossa import samba
from samba.compiled import compiled


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 4, 2, dropout=0.3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]


class Convolutional(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            # no bias before the norm: its gradient is rounding alone, of which Adam makes whole steps
            *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Dropout2d(0.2), nn.Flatten(), nn.Linear(128, 5), nn.LogSoftmax(1)),
        )


class Half(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 3))
        self.bfloat16()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "shape"), [(Recurrent, (2, 5, 6)), (Convolutional, (4, 3, 8, 8)), (Half, (4, 6))])
def test_two_steps_are_those_of_eager_torch(kind: type[nn.Module], shape: tuple[int, ...], tmp_path: Path):
    torch.manual_seed(0)
    model = kind()
    theirs = copy.deepcopy(model)
    dtype = next(model.parameters()).dtype
    x = samba.from_torch_tensor(torch.randn(shape).to(dtype), "x")
    optimizer = samba.optim.AdamW(model.parameters(), lr=1e-2)
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-2)
    pef = compiled(tmp_path, samba.from_torch_model_(model), (x,), optimizer)
    outputs = samba.utils.trace_graph(model, (x,), optimizer, pef=pef)
    # bfloat16: 8 bits; a step of Adam on a gradient near zero may go either way.
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-4
    for seed in range(2):
        torch.manual_seed(seed)
        ours = samba.session.run((x,), outputs)[0]
        torch.manual_seed(seed)
        expected = theirs(x)
        expected.sum().backward()
        reference.step()
        reference.zero_grad()
        torch.testing.assert_close(samba.to_torch(ours), expected.detach(), rtol=tolerance, atol=tolerance)
    samba.session.to_cpu(model)
    theirs.eval()
    torch.testing.assert_close(model.eval()(x), theirs(x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("line", "seed"), [("pass", "7"), ("torch.manual_seed(8)", "8")])
def test_samba_seed_counts_where_the_program_sets_none(line: str, seed: str):
    program = f"import torch\nfrom bossa import samba\n{line}\nprint(torch.initial_seed())"
    environment = os.environ | {"SAMBA_SEED": "7"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.strip() == seed
