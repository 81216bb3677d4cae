"""The pool of KV pages: which are free and which are lent."""

from __future__ import annotations

from collections.abc import Sequence


class PagePool:
    """Lends page ids 0 to ``pages - 1``. The order in which it lends them follows from the calls alone."""

    def __init__(self, pages: int, page_size: int) -> None:
        self.pages = pages
        self.page_size = page_size
        self.reset()

    def reset(self) -> None:
        """Take every page back."""
        self._free = list(range(self.pages - 1, -1, -1))
        self._lent: set[int] = set()

    @property
    def free_count(self) -> int:
        return len(self._free)

    def pages_for(self, positions: int) -> int:
        """Pages that hold this many positions."""
        return -(-positions // self.page_size)

    def alloc(self, count: int) -> list[int]:
        """Lend ``count`` pages. The caller has looked at ``free_count``: IndexError when there are too few."""
        if count > len(self._free):
            raise IndexError(f"{count} pages were asked of a pool that has {len(self._free)} left")
        ids = [self._free.pop() for _ in range(count)]
        self._lent.update(ids)
        return ids

    def free(self, ids: Sequence[int]) -> None:
        """Take pages back. KeyError when one was not lent."""
        for page in reversed(ids):
            self._lent.remove(page)
            self._free.append(page)
