"""A compiled model for the tests of the runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

import bossa
from bossa.pef import Pef
from support import zoo


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pef, Path]:
    """The file and the weights of a Llama of one layer."""
    folder = tmp_path_factory.mktemp("model")
    config = zoo.MODELS["llama"].config(num_hidden_layers=1)
    zoo.build(config).save_pretrained(folder)
    return bossa.compile(config, max_seq_length=zoo.LENGTH), folder
