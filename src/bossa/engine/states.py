"""The pool of state slots: which are free, which are lent, and which hold snapshots of recurrent state."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence


class StatePool:
    """Lends state slots 0 to ``slots - 1``. The order in which it lends them follows from the calls alone.

    A slot is lent to one running request, which moves what is in it. A snapshot is a copy, kept under the hash of the
    block at whose end it was taken (see ``prefix.py``), which stands for all tokens up to there. Slots with snapshots
    are free: where no blank one is left, the snapshot longest unused gives way.

    Args:
        slots: there are.
        copy: copies what is in one slot into another.
    """

    def __init__(self, slots: int, copy: Callable[[int, int], None]) -> None:
        self.slots = slots
        self._copy = copy
        self.reset()

    def reset(self) -> None:
        """Take every slot back, and forget all snapshots."""
        self._blank = list(range(self.slots - 1, -1, -1))
        self._lent: set[int] = set()
        self._snapshots: OrderedDict[bytes, int] = OrderedDict()  # their slots, the longest unused first
        self._asked: set[bytes] = set()  # snapshots that somebody has started from

    @property
    def free_count(self) -> int:
        return len(self._blank) + len(self._snapshots)

    def find(self, hashes: Sequence[bytes]) -> int:
        """Of these blocks, which follow each other, how many lie before the last snapshot that there is of them."""
        for count in range(len(hashes), 0, -1):
            if hashes[count - 1] in self._snapshots:
                return count
        return 0

    def touch(self, block_hash: bytes) -> None:
        """Keep a snapshot for longer than others, as if it had just been taken."""
        self._snapshots.move_to_end(block_hash)

    def take(self, block_hash: bytes | None = None) -> int:
        """Lend a slot, with the state of a snapshot in it. IndexError when none is free, KeyError for no snapshot."""
        if block_hash is None:
            slot = self._next()
        else:
            source = self._snapshots[block_hash]
            self.touch(block_hash)
            self._asked.add(block_hash)
            slot = self._next()
            if slot != source:  # else it was the last free one, and moves on itself
                self._copy(source, slot)
        self._lent.add(slot)
        return slot

    def give_back(self, slot: int) -> None:
        """Take a slot back. KeyError when it was not lent."""
        self._lent.remove(slot)
        self._blank.append(slot)

    def keep(self, slot: int, block_hash: bytes, instead: bytes | None = None) -> None:
        """Take a snapshot of a lent slot, unless there is one of this hash, or no slot is free.

        Args:
            instead: the hash of a snapshot that this one makes useless, unless somebody has started from that.
        """
        if block_hash in self._snapshots:
            self.touch(block_hash)
            return
        if instead is not None and instead in self._snapshots and instead not in self._asked:
            self._blank.append(self._snapshots.pop(instead))
        if self.free_count:
            copy = self._next()
            self._copy(slot, copy)
            self._snapshots[block_hash] = copy

    def _next(self) -> int:
        """A slot that nobody has: a blank one, or that of the snapshot longest unused."""
        if self._blank:
            return self._blank.pop()
        if not self._snapshots:
            raise IndexError(f"all {self.slots} state slots are lent")
        block_hash, slot = self._snapshots.popitem(last=False)
        self._asked.discard(block_hash)
        return slot
