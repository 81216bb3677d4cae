"""Batches of a loader under names."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from bossa.errors import SambaError
from bossa.samba.sambaloader import SambaLoader


def test_batches_keep_their_values_and_get_names():
    images, labels = torch.randn(5, 3), torch.arange(5)
    loader = SambaLoader(DataLoader(TensorDataset(images, labels), batch_size=2), ["image", "label"])
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [tensor.sn_name for tensor in batches[0]] == ["image", "label"]
    assert [tensor.batch_dim for tensor in batches[0]] == [0, 0]
    assert torch.equal(torch.cat([image for image, _ in batches]), images)
    assert torch.equal(torch.cat([label for _, label in batches]), labels)


def test_too_few_names_are_an_error():
    loader = SambaLoader([(torch.ones(1), torch.ones(1))], ["image"])
    with pytest.raises(SambaError, match="a batch of 2 tensors, and names for 1"):
        next(iter(loader))
