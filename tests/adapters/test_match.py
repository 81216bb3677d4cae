"""Modules of an adapter matched with slots: by tensor names, under a prefix that differs, and by shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bossa.adapters import dense, match, read
from bossa.errors import AdapterError
from bossa.ir.slot import Slot, Source
from bossa.targets.cpu.low_rank import pack
from support.lora_files import factors, write_adapter


def _source(name: str, n: int, k: int, *, transpose: bool = False) -> Source:
    return Source((name,), (k, n) if transpose else (n, k), transpose)


JOINED = Slot(
    "qkv",
    "panels",
    (28, 3),
    "fp32",
    (_source("model.q.weight", 16, 3), _source("model.k.weight", 8, 3), _source("model.v.weight", 4, 3)),
)
GATED = Slot(
    "gate|up", "panels", (64, 3), "fp32", (_source("model.g.weight", 32, 3), _source("model.u.weight", 32, 3)), True
)
ACROSS = Slot("c", "panels", (5, 3), "fp32", (_source("model.c.weight", 5, 3, transpose=True),))
SLOTS = [JOINED, GATED, ACROSS, Slot("e", "rows", (7, 3), "fp32", (_source("model.e.weight", 7, 3),))]


def test_modules_find_the_sources_of_joined_slots(tmp_path: Path) -> None:
    tensors = factors("model.v", n=4) | factors("model.u", n=32, seed=1) | factors("model.c", n=5)
    adapter = read(write_adapter(tmp_path / "a", tensors))
    matched = match(adapter, SLOTS)
    assert matched.content_hash == adapter.content_hash
    assert matched.pairs.keys() == {"qkv", "gate|up", "c"}
    assert matched.pairs["qkv"] == (None, None, adapter.pairs["model.v"])
    assert matched.pairs["gate|up"] == (None, adapter.pairs["model.u"])
    assert matched.nbytes == sum(tensor.nbytes for tensor in tensors.values())
    down, up = dense(GATED, matched.pairs["gate|up"])
    product = (up @ down).reshape(2, 2, 16, 3)  # [panel of a source, source, row, k]
    pair = adapter.pairs["model.u"]
    np.testing.assert_allclose(product[:, 1].reshape(32, 3), pair.up @ pair.down, rtol=1e-6)
    assert not product[:, 0].any()


@pytest.mark.parametrize("prefix", ["", "model.", "other.model."])
def test_a_prefix_may_differ(prefix: str, tmp_path: Path) -> None:
    tensors = factors(f"{prefix}v", n=4) | factors(f"{prefix}c", n=5)
    assert match(read(write_adapter(tmp_path / "a", tensors)), SLOTS).pairs.keys() == {"qkv", "c"}


@pytest.mark.parametrize(
    ("module", "n", "k", "message"),
    [
        ("model.other", 4, 3, r"adapts 1 of 1 modules that are no linears of the program \(model\.other\)"),
        ("model.e", 7, 3, r"adapts 1 of 1 modules that are no linears of the program \(model\.e\)"),
        ("model.v", 5, 3, r"adapts model\.v as a matrix of 5 by 3, and the program's has 4 by 3"),
        ("model.c", 3, 5, r"adapts model\.c as a matrix of 3 by 5, and the program's has 5 by 3"),
    ],
)
def test_an_adapter_of_another_model_is_refused_by_name(
    module: str, n: int, k: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match=message):
        match(read(write_adapter(tmp_path / "a", factors(module, n, k))), SLOTS)


def test_two_modules_of_one_matrix_are_refused(tmp_path: Path) -> None:
    tied = Slot("h", "panels", (4, 3), "fp32", (Source(("h.weight", "t.weight"), (4, 3)),))
    with pytest.raises(AdapterError, match="adapts both h and t, which are one matrix"):
        match(read(write_adapter(tmp_path / "a", factors("h") | factors("t"))), [tied])


@pytest.mark.parametrize(("slot", "module", "n"), [(JOINED, "model.q", 16), (GATED, "model.u", 32)])
def test_panels_that_nothing_stands_beside_have_no_ranks(slot: Slot, module: str, n: int, tmp_path: Path) -> None:
    pairs = match(read(write_adapter(tmp_path / "a", factors(module, n))), SLOTS).pairs
    packed = pack(slot, pairs[slot.name])
    assert packed.up.size == 2 * n if slot is GATED else packed.up.size >= 2 * n
    assert packed.down.ctypes.data % 64 == 0
    if slot is GATED:
        assert (packed.last - packed.first).tolist() == [0, 1, 0, 1]
