"""bossa.compile from Python: what it is given is looked at before torch loads."""

from __future__ import annotations

from typing import Any

import pytest

import bossa
from bossa.errors import BossaError


@pytest.mark.parametrize(
    "options",
    [
        *({"batch_size": value} for value in ("2", 1.0, True, 0, -1, None, 2**31, 10**12, 10**5000, -(10**5000))),
        *({"max_seq_length": value} for value in ("128", 64.0, True)),
        *({"targets": value} for value in ("pdp11", 3, [3], ["x86-64-v3", ""])),
        *({"precision": value} for value in ("fp64", "int4-a16", None, [])),
        *({"bundle": 1}, {"trust_remote_code": "yes"}, {"name": 3}, {"name": ""}, {"cache_dir": 3}, {"progress": 3}),
    ],
)
def test_an_argument_of_another_type_is_one_line_that_names_it(options: dict[str, Any]) -> None:
    with pytest.raises(BossaError) as caught:
        bossa.compile("/nowhere", **options)
    (name,) = options
    assert name.removesuffix("s") in str(caught.value)
    assert str(caught.value).isprintable()
