"""The pool of KV pages: which are free, which are lent and to how many, and which are kept for what they hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

FEWEST_KEPT = 32
"""Pages that nobody has asked for again which are kept to begin with, while there is memory that was never used: the
prompts of a thousand tokens."""


class PagePool:
    """Lends page ids 0 to ``pages - 1``. The order in which it lends them follows from the calls alone.

    A page whose contents have a block hash (see ``prefix.py``) is found by it, lent to as many as ask, and kept when
    the last of them gives it back. A kept page is free: it is lent for something new once no blank one is left, the one
    longest unused first, and forgotten with that.

    A page that was never lent has no memory behind it yet, and getting that takes as long as a good deal of computing.
    So of the kept ones that nobody has asked for again only ``cold_pages`` are spared for as long as there are others;
    twice as many from the time on when somebody asks for one that was forgotten for that.
    """

    def __init__(self, pages: int, page_size: int, cold_pages: int = FEWEST_KEPT) -> None:
        self.pages = pages
        self.page_size = page_size
        self.cold_pages = cold_pages
        self._fresh = 0  # from this one on they were never lent
        self.reset()

    def reset(self) -> None:
        """Take every page back, and forget what they hold."""
        self._blank = list(range(self._fresh - 1, -1, -1))  # lent before, and hold nothing
        self._kept: OrderedDict[int, None] = OrderedDict()  # hashed and lent to nobody, the longest unused first
        self._cold: OrderedDict[int, None] = OrderedDict()  # those of them that nobody has asked for by hash
        self._asked: set[int] = set()  # pages that somebody has
        self._missed: OrderedDict[bytes, None] = OrderedDict()  # hashes that were forgotten though there was new memory
        self._holders: dict[int, int] = {}  # of each page that is lent
        self._page_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    @property
    def free_count(self) -> int:
        return self.pages - self._fresh + len(self._blank) + len(self._kept)

    def pages_for(self, positions: int) -> int:
        """Pages that hold this many positions."""
        return -(-positions // self.page_size)

    def alloc(self, count: int) -> list[int]:
        """Lend ``count`` pages to write. The caller has looked at ``free_count``: IndexError when there are too few."""
        if count > self.free_count:
            raise IndexError(f"{count} pages were asked of a pool that has {self.free_count} left")
        ids = [self._next() for _ in range(count)]
        self._holders.update(dict.fromkeys(ids, 1))
        return ids

    def free(self, ids: Sequence[int]) -> None:
        """Take pages back, one holder's. KeyError when one was not lent.

        Those of later positions count as longer unused: without the ones before them they are good for nothing.
        """
        for page in reversed(ids):
            holders = self._holders[page] - 1
            if holders:
                self._holders[page] = holders
                continue
            del self._holders[page]
            if page in self._hash_of:
                self._kept[page] = None
                if page not in self._asked:
                    self._cold[page] = None
            else:
                self._blank.append(page)

    def find(self, hashes: Iterable[bytes]) -> int:
        """How many of these block hashes, from the first on without a gap, are those of pages.

        Where the next one was forgotten to spare new memory, more are kept from now on.
        """
        count = 0
        for block_hash in hashes:
            if block_hash not in self._page_of:
                if block_hash in self._missed:
                    del self._missed[block_hash]
                    self.cold_pages = min(2 * self.cold_pages, self.pages)
                break
            count += 1
        return count

    def share(self, hashes: Iterable[bytes]) -> list[int]:
        """Lend the pages of these hashes to one more holder, to read. KeyError when there is none of a hash."""
        ids = [self._page_of[block_hash] for block_hash in hashes]
        for page in ids:
            self._kept.pop(page, None)
            self._asked_for(page)
            self._holders[page] = self._holders.get(page, 0) + 1
        return ids

    def touch(self, hashes: Iterable[bytes]) -> None:
        """Keep the pages of these hashes for longer than others, as if they had just been given back."""
        for page in [self._page_of[block_hash] for block_hash in hashes][::-1]:
            if page in self._kept:
                self._kept.move_to_end(page)
                self._asked_for(page)

    def register(self, page: int, block_hash: bytes) -> int:
        """Say what a lent page holds, from now on unchanged. Returns the page to use for it from now on.

        Where another page has that hash, its holder gets that one, and the page itself is given back.
        """
        known = self._page_of.setdefault(block_hash, page)
        if known != page:
            self.share([block_hash])
            self.free([page])
        else:
            self._hash_of[page] = block_hash
        return known

    def _asked_for(self, page: int) -> None:
        self._cold.pop(page, None)
        self._asked.add(page)

    def _next(self) -> int:
        """A page to lend: a blank one, a new one, or one that is forgotten."""
        if self._blank:
            return self._blank.pop()
        if self._fresh == self.pages:
            return self._forget(next(iter(self._kept)))
        if self._cold and len(self._cold) >= self.cold_pages:
            page = next(iter(self._cold))
            self._missed[self._hash_of[page]] = None
            if len(self._missed) > self.pages:
                self._missed.popitem(last=False)
            return self._forget(page)
        self._fresh += 1
        return self._fresh - 1

    def _forget(self, page: int) -> int:
        del self._kept[page]
        self._cold.pop(page, None)
        self._asked.discard(page)
        del self._page_of[self._hash_of.pop(page)]
        return page
