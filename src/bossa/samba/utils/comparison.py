"""Comparing what a session computed with what torch did."""

from __future__ import annotations

import torch

from bossa.samba.tensor import to_torch


def assert_close(
    actual: torch.Tensor, expected: torch.Tensor, name: str = "tensor", threshold: float = 1e-5, visualize: bool = False
) -> None:
    """Check that the norm of the difference is at most ``threshold`` of the norm of what was expected.

    Args:
        actual: What a session gave.
        expected: What it is compared with, of the same shape.
        name: Said in the error.
        threshold: A part of one.
        visualize: Taken as it comes: nothing is drawn.

    Raises:
        AssertionError: It is more, or the shapes differ.
    """
    ours, theirs = to_torch(actual).detach().double(), to_torch(expected).detach().double()
    if ours.shape != theirs.shape:
        raise AssertionError(f"{name}: shape {list(ours.shape)}, and {list(theirs.shape)} was expected")
    norm = theirs.norm()
    difference = float((ours - theirs).norm() / norm if norm else ours.norm())
    if not difference <= threshold:  # nor where it is not a number
        raise AssertionError(f"{name}: {difference:.3g} of what was expected differs, and {threshold:g} may")
