"""Git LFS pointers: a few lines of text where a large file should be, as a clone without Git LFS leaves them."""

from __future__ import annotations

LONGEST = 1024
"""Bytes of the largest pointer; its specification asks for fewer."""
FETCH = (
    "is a Git LFS pointer, not the file itself: fetch it with 'git lfs pull', or download the model from the hub again"
)
"""What messages say after the file's name."""


def is_lfs_pointer(data: bytes) -> bool:
    """Whether a file is a pointer, by its content or the first 100 bytes of it.

    Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md; the older name of the specification counts too.
    """
    return data.startswith((b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/"))
