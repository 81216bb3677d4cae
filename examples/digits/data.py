"""Handwritten digits that come with scikit-learn: 1,797 images of 8 by 8 pixels."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

TESTED = 360


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Images float32 `[n, 64]`, of mean 0 and deviation 1, and labels int64 `[n]`: to train with, and to test."""
    images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    images = ((images - images.mean()) / images.std()).float()
    return TensorDataset(images[:-TESTED], labels[:-TESTED]), TensorDataset(images[-TESTED:], labels[-TESTED:])
