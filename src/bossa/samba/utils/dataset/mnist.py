"""Handwritten digits, 28 by 28."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

MEAN, DEVIATION = 0.1307, 0.3081
"""Of the 60,000 training images, with pixels from 0 to 1."""


def dataset_transform(args: Any = None) -> Callable[[Any], torch.Tensor]:
    """What makes an image a row of the network's input: float32 ``[784]``, of mean 0 and deviation 1 over the data.

    Args:
        args: The program's arguments, as a dict or a namespace; nothing in them matters here.

    Returns:
        A function of an image: PIL's, an array or a tensor, of bytes or of floats from 0 to 1.
    """
    return _normalized


def _normalized(image: Any) -> torch.Tensor:
    # numpy makes a copy of what it must not write to, which torch would warn about
    pixels = image if isinstance(image, torch.Tensor) else torch.from_numpy(np.array(image))
    pixels = pixels.to(torch.float32) / 255 if pixels.dtype == torch.uint8 else pixels.to(torch.float32)
    return (pixels.flatten() - MEAN) / DEVIATION
