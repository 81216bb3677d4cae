"""One seed for everything random."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from bossa.errors import SambaError
from bossa.samba import seed, utils


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed, "_set", None)
    monkeypatch.delenv("SAMBA_SEED", raising=False)


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_seed_repeats_all_generators():
    utils.set_seed(256)
    first = draw()
    utils.set_seed(256)
    assert draw() == first
    utils.set_seed(2**40 + 256)
    assert draw() != first
    assert seed.current_seed() == 2**40 + 256


def test_the_environment_has_the_default(monkeypatch: pytest.MonkeyPatch):
    assert seed.current_seed() == 0
    monkeypatch.setenv("SAMBA_SEED", "7")
    assert seed.current_seed() == 7
    utils.set_seed()
    first = draw()
    utils.set_seed(7)
    assert draw() == first
    utils.set_seed(8)
    assert seed.current_seed() == 8


def test_a_seed_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAMBA_SEED", "x")
    with pytest.raises(SambaError, match="SAMBA_SEED=x: not a whole number"):
        seed.current_seed()
