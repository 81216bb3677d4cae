"""Images of digits become rows of numbers."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest
import torch

from bossa.samba.utils.dataset.mnist import dataset_transform


class Image:
    """What numpy sees of an image of PIL's."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.__array_interface__ = pixels.__array_interface__
        self.pixels = pixels  # kept alive


PIXELS = np.arange(784, dtype=np.uint32).astype(np.uint8).reshape(28, 28)


@pytest.mark.parametrize("args", [{"batch_size": 1}, Namespace(batch_size=1), None])
@pytest.mark.parametrize(
    "image", [PIXELS, Image(PIXELS), torch.from_numpy(PIXELS), torch.from_numpy(PIXELS)[None], PIXELS / np.float32(255)]
)
def test_an_image_becomes_a_flat_normalized_row(args: object, image: object):
    row = dataset_transform(args)(image)
    assert (row.dtype, row.shape) == (torch.float32, (784,))
    expected = (PIXELS.flatten() / 255 - 0.1307) / 0.3081
    # one division and one subtraction in float32 beside float64
    np.testing.assert_allclose(row.numpy(), expected, rtol=1e-6, atol=1e-6)
