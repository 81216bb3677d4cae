"""What holds for every format that there is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bossa.errors import WeightsError
from bossa.formats.format import LAYOUTS
from bossa.formats.registry import FORMATS
from bossa.weights import Slot, Source, bind
from support.arrays import Arrays

QUANTIZED = [name for name in FORMATS if FORMATS[name].quantized]


def test_formats_are_found_in_their_files_once_each():
    assert {"fp32", "int8", "int6", "int4", "int6-a16", "int4-a16", "int6-a8", "int4-a8"} <= set(FORMATS)
    assert all(stored.name == name for name, stored in FORMATS.items())
    assert len({stored.cpp for stored in FORMATS.values()}) == len(FORMATS)


def test_sizes_are_known_without_numpy():
    program = (
        "import sys; from bossa.formats.registry import FORMATS;"
        "print(sum(format.panel_bytes(768) + format.activation_bytes(768) for format in FORMATS.values()),"
        "'numpy' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split()[1] == "False"


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_the_layouts_that_it_names_and_no_other(name: str):
    stored = FORMATS[name]
    assert set(stored.layouts) <= set(LAYOUTS)
    assert "panels" in stored.layouts
    if "rows" in stored.layouts:
        assert stored.table_bytes(33, 5) > 0
    else:
        with pytest.raises(NotImplementedError, match=f"{name} has no tables"):
            stored.table_bytes(33, 5)


@pytest.mark.parametrize("name", FORMATS)
def test_a_slot_survives_json(name: str):
    sources = tuple(Source((tensor,), (32, 5)) for tensor in "ab")
    slot = Slot("s", "panels", (64, 5), name, sources, True)
    assert Slot.from_json(slot.to_json()) == slot


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_number_too_large_for_few_bits_is_refused_by_name(name: str):
    for value in (2e37, -3e38):
        values = np.ones((20, 6), np.float32)
        values[17, 3] = value
        slot = Slot("s", "panels", (20, 6), name, (Source(("t0",), (20, 6)),))
        with pytest.raises(WeightsError, match=f"'t0' has a number that is too large for {name}: compile with fp32"):
            bind([slot], Arrays({"t0": values}))
