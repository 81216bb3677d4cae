"""fp32: numbers are kept as they are, in every layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bossa.weights import Slot, Source, bind
from support.arrays import Arrays, dequantize


@pytest.mark.parametrize("layout", ["panels", "rows", "flat"])
def test_slots_are_read_back_as_they_were(layout: Any):
    values = np.random.default_rng(0).standard_normal((35, 6)).astype(np.float32)
    slot = Slot("s", layout, (35, 6), "fp32", (Source(("w",), (35, 6)),))
    blob = bind([slot], Arrays({"w": values})).blob
    np.testing.assert_array_equal(dequantize(slot, np.frombuffer(blob, np.uint8)[: slot.nbytes]), values)


def test_numbers_of_any_size_are_taken():
    values = np.full((16, 2), np.finfo(np.float32).max, np.float32)
    slot = Slot("s", "panels", (16, 2), "fp32", (Source(("w",), (16, 2)),))
    assert bind([slot], Arrays({"w": values})).view("s").max() == np.finfo(np.float32).max
