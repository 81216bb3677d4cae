"""Other kinds of modules, compiled, against eager torch: a step with AdamW each."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Sequence
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


class All(nn.Module):
    """One of each, so that one compilation does for all."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Recurrent(), Convolutional(), Half()])

    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        return [part(x) for part, x in zip(self.parts, inputs, strict=True)]


@pytest.mark.long
def test_two_steps_are_those_of_eager_torch(tmp_path: Path):
    torch.manual_seed(0)
    model = All()
    theirs = copy.deepcopy(model)
    shapes = {(2, 3, 6): torch.float32, (4, 3, 8, 8): torch.float32, (4, 6): torch.bfloat16}
    inputs = [
        samba.from_torch_tensor(torch.randn(shape).to(dtype), f"x{len(shape)}") for shape, dtype in shapes.items()
    ]
    optimizer = samba.optim.AdamW(model.parameters(), lr=1e-2)
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-2)
    pef = compiled(tmp_path, samba.from_torch_model_(model), inputs, optimizer)
    outputs = samba.utils.trace_graph(model, inputs, optimizer, pef=pef)

    def check(ours: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
        for one, other in zip(ours, expected, strict=True):
            # bfloat16: 8 bits; a step of Adam on a gradient near zero may go either way.
            tolerance = 3e-2 if other.dtype == torch.bfloat16 else 1e-4
            torch.testing.assert_close(samba.to_torch(one), other.detach(), rtol=tolerance, atol=tolerance)

    for seed in range(2):
        torch.manual_seed(seed)
        ours = samba.session.run(inputs, outputs, loss_indices=[0, 1, 2])
        torch.manual_seed(seed)
        expected = theirs(*inputs)
        sum(output.float().sum() for output in expected).backward()
        reference.step()
        reference.zero_grad()
        check(ours, expected)
    samba.session.to_cpu(model)
    check(model.eval()(*inputs), theirs.eval()(*inputs))


@pytest.mark.parametrize(("line", "seed"), [("pass", "7"), ("torch.manual_seed(8)", "8")])
def test_samba_seed_counts_where_the_program_sets_none(line: str, seed: str):
    program = f"import torch\nfrom bossa import samba\n{line}\nprint(torch.initial_seed())"
    environment = os.environ | {"SAMBA_SEED": "7"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.strip() == seed
