"""Rows of two kinds that a plane separates."""

import torch


def batches(size, count, transform):
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        labels = torch.randint(2, (size,), generator=generator)
        images = torch.rand(size, 28, 28, generator=generator) * 0.2 + labels[:, None, None] * 0.5
        yield torch.stack([transform(image) for image in images]), labels
