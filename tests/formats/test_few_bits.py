"""What both ways to store a weight in 4 or 6 bits keep to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bossa.formats import groupwise, progressive
from bossa.formats.format import LARGEST
from bossa.formats.rounding import SMALLEST


@pytest.mark.parametrize("size", [SMALLEST * 32, 1.0, LARGEST])
@pytest.mark.parametrize(
    ("form", "bits", "error"),
    [(groupwise, 6, 0.017), (groupwise, 4, 0.07), (progressive, 6, 0.021), (progressive, 4, 0.075)],
)
def test_the_smallest_and_the_largest_numbers_keep_their_precision(form: Any, bits: int, error: float, size: float):
    pattern = np.array([[1, -1, 0.5, -0.25, 0.75] * 9], np.float32)
    matrix = form.quantize(pattern * np.float32(size), bits).matrix()
    assert np.isfinite(matrix).all()
    assert np.abs(matrix / np.float32(size) - pattern).max() <= error


@pytest.mark.parametrize("form", [groupwise, progressive])
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_no_rows_and_no_numbers_are_nothing(form: Any, shape: tuple[int, int]):
    assert form.quantize(np.zeros(shape, np.float32), 4).matrix().shape == shape
