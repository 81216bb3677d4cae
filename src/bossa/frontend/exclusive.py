"""One thread at a time where torch traces and compiles: it keeps what it traces in state of the process.

`torch.export` sets hooks on all modules and modes of its own, and two at once break each other; so do the first imports
of transformers' modules, and settings of warnings.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Within it no other thread traces; a thread may enter it several times over."""
    with _lock:
        yield


def _forget() -> None:
    """In a forked child, the thread that held the lock is not there."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_forget)
