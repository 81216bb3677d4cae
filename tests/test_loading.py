"""What ``bossa.load`` is given: each argument is checked by name, before the file is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bossa
from bossa.dataset.prompts import read_records
from bossa.errors import BossaError, PefError, RequestError
from bossa.loading import _find
from bossa.pef.writer import write
from bossa.tokenizer import Tokenizer
from bossa.weights import open_weights

NAMES = (
    *("pef", "weights", "checkpoint", "threads", "cpus", "memory", "max_seq_length", "batch_size", "tokenizer"),
    *("cache_dir", "rebuild", "progress"),
)
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3),
    st.sampled_from([10**400, -1, 0, "a\0b", "", "\x1b[2J\n", [1.5], ["0"], {"a": 1}, object(), np.float32(3), 1e9]),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(NAMES), value=ODD)
def test_every_odd_argument_is_refused_by_name_or_taken(name: str, value: Any) -> None:
    """There is no such file, so that what is taken ends with that."""
    refusal: BossaError | None = None
    try:
        bossa.load(**({"pef": "/nowhere/x.pef"} | {name: value}))
    except BossaError as error:
        refusal = error
    assert refusal is not None
    assert str(refusal).isprintable() or (name == "pef" and isinstance(refusal, PefError))
    assert isinstance(refusal, PefError) or str(refusal).startswith(f"{name} "), refusal


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"pef": None}, "pef must be a path, and is None"),
        ({"pef": 7}, "pef must be a path, and is 7"),
        ({"weights": b"x"}, "weights must be a path, and is b'x'"),
        ({"checkpoint": 3}, "checkpoint must be a path or a source of tensors, and is 3"),
        ({"threads": 1.0}, "threads must be a whole number from 1, and is 1.0"),
        ({"threads": 0}, "threads must be a whole number from 1, and is 0"),
        ({"threads": 100_000}, "threads is 100000, and at most"),
        ({"cpus": "0"}, "cpus must be a list of whole numbers, and is '0'"),
        ({"cpus": [0.5]}, "cpus must be a list of whole numbers, and is 0.5"),
        ({"memory": 1e9}, "memory must be a whole number of bytes, and is 1000000000.0"),
        ({"memory": -1}, "memory must be a whole number of bytes, and is -1"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 to 2147483647, and is 0"),
        ({"max_seq_length": "9"}, "max_seq_length must be a whole number, and is '9'"),
        ({"tokenizer": ""}, "tokenizer must be a path, and is ''"),
        ({"cache_dir": "a\0b"}, "cache_dir must be a path, and is "),
        ({"rebuild": "yes"}, "rebuild must be True or False, and is 'yes'"),
        ({"progress": 1}, "progress must be a function, and is 1"),
    ],
)
def test_what_is_wrong_with_an_argument_is_said_before_the_file_is_opened(
    argument: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=f"^{message}"):
        bossa.load(**({"pef": "/nowhere/x.pef"} | argument))


@pytest.mark.parametrize("name", ["a" * 5000, "/" + "a" * 300, "a/" * 3000 + "b.gguf"])
@pytest.mark.parametrize(
    "use",
    [
        bossa.load,
        lambda name: bossa.load(name, weights=name, tokenizer=name),
        lambda name: list(read_records(name)),
        Tokenizer.from_directory,
        open_weights,
        lambda name: write(Path(name), {}),
        lambda name: _find(Path(name), None),
    ],
)
def test_a_path_longer_than_any_is_one_line_of_ours(use: Any, name: str) -> None:
    with pytest.raises(BossaError) as caught:
        use(name)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 1600
    assert not line.endswith("too long")  # but with what to do
