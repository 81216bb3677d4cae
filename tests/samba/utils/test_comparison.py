"""Checks that programs make of a session's results, and reports that they write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bossa import samba
from bossa.samba.env import use_mock_samba_runtime
from bossa.samba.utils import assert_close
from bossa.samba.utils.benchmark_acc import AccuracyReport


def test_a_difference_is_measured_against_what_was_expected():
    expected = torch.full((3, 4), 100.0)
    near = samba.from_torch_tensor(expected + 1, name="output")
    assert_close(near, expected, "output", threshold=0.011, visualize=False)
    with pytest.raises(AssertionError, match=r"output: 0\.01 of what was expected differs, and 0\.009 may"):
        assert_close(near, expected, "output", threshold=0.009)
    with pytest.raises(AssertionError, match=r"grad: shape \[2\], and \[3, 4\] was expected"):
        assert_close(torch.ones(2), expected, "grad")
    with pytest.raises(AssertionError, match="nan"):
        assert_close(expected * float("nan"), expected, threshold=1.0)
    assert_close(torch.zeros(2), torch.zeros(2))


def test_a_report_is_json(tmp_path: Path):
    AccuracyReport(val_metrics={"acc": 0.5}, batch_size=4, num_iterations=100).save(tmp_path / "a" / "b.json")
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == {
        "val_metrics": {"acc": 0.5},
        "batch_size": 4,
        "num_iterations": 100,
    }


def test_sessions_compute():
    assert use_mock_samba_runtime() is False
