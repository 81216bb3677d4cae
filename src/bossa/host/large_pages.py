"""Memory in large pages: a step reads all weights, and in pages of 4 KB it waits as long for where they lie."""

from __future__ import annotations

import contextlib
import mmap


def anonymous(size: int) -> mmap.mmap:
    """``size`` zeroed bytes of this process alone (at least one), in large pages where the system has them.

    Raises:
        OSError, OverflowError, ValueError: there is not as much.
    """
    memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    prefer_large(memory)
    return memory


def prefer_large(memory: mmap.mmap) -> None:
    """Asks for pages of 2 MB: for memory before it is touched, and for a file before it is read or written.

    Linux gives them to anonymous memory, and to files where the file system keeps large folios (ext4 from 6.16 on, XFS
    from 5.18, btrfs from 6.17); in all other cases nothing changes.
    """
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
