"""Block hashes: what stands for the contents of KV pages, so that prompts with a common beginning find each other's."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b


def extend_hashes(hashes: list[bytes], tokens: Sequence[int], page_size: int, salt: bytes = b"") -> None:
    """Append to ``hashes`` those of the full pages of ``tokens`` that it does not have yet.

    The keys and values of a page follow from its tokens and all before them, as recurrent state at its end does. So the
    hash is of its tokens and of the hash of the page before: 256 bits of BLAKE2b, so that two contents of one hash
    cannot be had even on purpose.

    Args:
        salt: what else the contents follow from, such as the hash of an adapter; the first page begins with it.
    """
    for first in range(len(hashes) * page_size, len(tokens) - page_size + 1, page_size):
        before = hashes[-1] if hashes else salt
        page = array("i", tokens[first : first + page_size])
        hashes.append(blake2b(before + page.tobytes(), digest_size=32).digest())
