"""The driver that programs share."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
from torch import nn

from bossa import samba
from bossa.errors import SambaError
from bossa.samba.utils.argparser import parse_app_args
from bossa.samba.utils.common import common_app_driver


class Doubled(nn.Module):
    """Gives its input twice."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, x: samba.SambaTensor) -> tuple[samba.SambaTensor]:
        self.runs += 1
        return (x * 2,)


def test_it_compiles_and_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    model, inputs = Doubled(), [samba.randn(2, 3, name="x")]
    common_app_driver(parse_app_args(["compile", "--pef-name", "d"]), model, inputs, name="d", squeeze_bs_dim=True)
    assert capsys.readouterr().out == "out/d/d.pef\n"
    args = parse_app_args(["measure-performance", "--pef", "out/d/d.pef", "--n-iters", "5", "-b", "2"])
    common_app_driver(args=args, model=model, inputs=inputs, init_output_grads=False)
    assert "samples/s" in capsys.readouterr().out
    assert model.runs == 1 + 1 + 5  # traced, run once before, and measured
    with pytest.raises(SambaError, match="run is left to the program"):
        common_app_driver(Namespace(command="run"), model, inputs)
