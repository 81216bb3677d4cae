"""What loading sets aside for keys and values."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import pytest

from bossa import loading
from bossa.engine.pages import PagePool


def manifest(page_bytes: int) -> Any:
    return SimpleNamespace(page_bytes=page_bytes, page_size=32)


def test_keys_and_values_take_what_is_wanted_or_the_budget_if_that_is_less():
    assert loading._pages(manifest(1000), 3, 65, 10**9) == 9
    assert loading._pages(manifest(1000), 3, 65, 4999) == 4


@pytest.mark.parametrize("page_bytes", [0, 64, 1 << 20])
@pytest.mark.parametrize(("sequences", "length"), [(2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (2**31 - 1, 32)])
def test_limits_near_two_gigabytes_make_no_giant_list(page_bytes: int, sequences: int, length: int):
    pages = loading._pages(manifest(page_bytes), sequences, length, 1 << 45)
    assert 1 <= pages <= loading.MOST_PAGES
    tracemalloc.start()
    try:
        PagePool(pages, 32)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
