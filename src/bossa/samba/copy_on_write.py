"""Memory mapped privately from files without a name: many have the same pages until one of them writes."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from typing import Any

import numpy as np
import torch

from bossa.errors import RuntimeFailure

_FIXED = 0x10
"""MAP_FIXED, the same on Linux and macOS; Python's mmap does not name it."""
_FAILED = ctypes.c_void_p(-1).value
_ALONE = 2
"""What torch counts for memory of one tensor: the tensor, and the object that is asked."""

_system = ctypes.CDLL(None, use_errno=True)
_system.mmap.restype = ctypes.c_void_p
_system.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
]  # fmt: skip
_system.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Pages:
    """Memory of the process alone, zeroed where it shows no file; as an array of bytes, which keeps it alive."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._address = 0
        self._address = _map(None, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        self.__array_interface__: dict[str, Any] = {
            "shape": (size,),
            "typestr": np.dtype(np.uint8).str,
            "data": (self._address, False),
            "version": 3,
        }

    def show(self, file: int, first: int, last: int) -> None:
        """Has the bytes of a file from `first` to `last`, at their place; `first` is a multiple of a page."""
        _map(self._address + first, last - first, mmap.MAP_PRIVATE | _FIXED, file, first)

    def __del__(self) -> None:
        if self._address:
            _system.munmap(self._address, self._size)


def _map(address: int | None, size: int, flags: int, file: int, offset: int) -> int:
    found = _system.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, file, offset)
    if found == _FAILED or found is None:
        reason = os.strerror(ctypes.get_errno())
        raise RuntimeFailure(f"{size:,} bytes cannot be mapped ({reason}): let go of earlier results")
    return int(found)


def nameless() -> Any:
    """A file that is gone when nobody maps it any more, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("bossa"), "wb")
    return tempfile.TemporaryFile()


def divide(tensor: torch.Tensor) -> torch.Tensor | None:
    """Moves a tensor to new pages, in place, and gives a second one that has them too.

    What is written to either of the two is not in the other, and takes memory of its own then.

    Returns:
        None, and the tensor is as it was, where others look at its memory, it is empty or has holes, or the system has
        no more such memory.
    """
    if not hasattr(os, "memfd_create") or not tensor.nbytes or not _is_dense(tensor):
        return None
    if tensor.is_shared() or torch._C._storage_Use_Count(tensor.untyped_storage()._cdata) != _ALONE:
        return None
    try:
        one, other = _twice(tensor.detach().as_subclass(torch.Tensor))
    except (OSError, RuntimeFailure):
        return None
    tensor.data = one
    return other


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.stride() == torch.empty_like(tensor, device="meta").stride()


def _twice(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Two tensors like this one, in memory of which neither has any for itself yet."""
    elements = tensor.as_strided((tensor.numel(),), (1,))
    rows = np.asarray(elements.view(torch.uint8).numpy())
    with nameless() as file:
        file.write(rows.data)
        file.flush()
        copies = []
        for _ in range(2):
            pages = Pages(len(rows))
            pages.show(file.fileno(), 0, len(rows))
            flat = torch.from_numpy(np.asarray(pages)).view(tensor.dtype)
            copies.append(flat.as_strided(tensor.shape, tensor.stride()))
    return copies
