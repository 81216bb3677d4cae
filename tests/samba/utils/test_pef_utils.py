"""What a program says about itself in its PEF."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import torch
from torch import nn

from bossa.samba import utils
from bossa.samba.utils.pef_utils import get_pefmeta


def test_metadata_has_the_arguments_and_the_model_as_json():
    args = Namespace(lr=0.1, path=Path("data"), dtype=torch.float32, shape=(1, 2), name=None)
    metadata = json.loads(json.dumps(get_pefmeta(args, nn.Linear(3, 4))))
    assert metadata["model"] == "Linear"
    assert metadata["parameters"] == 16
    assert metadata["arguments"] == {
        "lr": 0.1,
        "path": "data",
        "dtype": "torch.float32",
        "shape": [1, 2],
        "name": None,
    }


def test_the_directory_of_a_file_is_absolute(tmp_path: Path):
    assert utils.get_file_dir(tmp_path / "program.py") == str(tmp_path)
    assert utils.get_file_dir("program.py") == str(Path.cwd())
