"""The manifest is believed in no field before it is checked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bossa.errors import PefError
from bossa.pef import Manifest, Pef

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def valid(pef: Pef) -> dict[str, Any]:
    return pef.manifest.to_json()


def test_a_manifest_comes_back_from_its_own_json(pef: Pef):
    assert Manifest.from_json(pef.manifest.to_json()) == pef.manifest
    assert Manifest.decode(pef.manifest.encode()) == pef.manifest
    assert Manifest.decode(pef.manifest.encode()).encode() == pef.manifest.encode()


def test_keys_that_this_version_does_not_know_are_kept(valid: dict[str, Any]):
    read = Manifest.from_json(valid | {"colour": "blue"})
    assert read.extra == {"colour": "blue"}
    assert read.to_json()["colour"] == "blue"


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value, {"x": 1}]
    return value


@pytest.mark.parametrize("depth", [17, 300, 900])
def test_what_is_nested_deeply_is_refused_wherever_it_is(valid: dict[str, Any], depth: int):
    """Python writes, compares and shows such lists by recursion."""
    slot = valid["slots"][0]
    places: list[dict[str, Any]] = [
        {"colour": nested(depth)},
        {"slots": [slot | {"colour": nested(depth)}]},
        {"slots": [slot | {"sources": [source | {"colour": nested(depth)} for source in slot["sources"]]}]},
        {"name": nested(depth)},
        {"slots": nested(depth)},
        {"sections": nested(depth)},
        {"members": {"program.cc": nested(depth)}},
    ]
    for place in places:
        with pytest.raises(PefError) as caught:
            Manifest.from_json(valid | place)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


def test_additions_that_are_nested_a_little_are_kept(valid: dict[str, Any]):
    assert Manifest.from_json(valid | {"colour": nested(5)}).to_json()["colour"] == nested(5)


def test_a_newer_format_version_asks_to_upgrade_even_when_all_else_is_unknown():
    with pytest.raises(PefError, match=r"format version 3 was made by a newer Bossa .*: upgrade bossa"):
        Manifest.from_json({"format_version": 3})


def test_an_older_format_version_asks_to_compile_again():
    with pytest.raises(PefError, match=r"format version 1 was made by an older Bossa .*: compile the model again"):
        Manifest.from_json({"format_version": 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format_version", 0),
        ("format_version", "1"),
        ("format_version", True),
        ("name", ""),
        ("name", 3),
        ("name", "\ud800"),
        ("precision", "int3"),
        ("max_seq_length", 0),
        ("max_seq_length", 2**31),
        ("batch_size", -1),
        ("vocab_size", 1.5),
        ("page_size", 0),
        ("page_bytes", 2**60),
        ("kv_precision", "int4"),
        ("state_bytes", -64),
        ("state_bytes", 65),
        ("state_bytes", 2**60),
        ("state_bytes", None),
        ("state_drafts", 3),  # of no state
        ("targets", "x86-64-v3"),
        ("targets", ["../x"]),
        ("targets", ["a", "a"]),
        ("slots", {}),
        ("slots", [3]),
        ("ignored_tensors", ["("]),
        ("ignored_tensors", [1]),
        ("parameters", -1),
        ("sections", [{"name": "a"}]),
        ("members", []),
        ("members", {"a": {"size": -1, "sha256": "0" * 64}}),
        ("members", {"a": {"size": 1, "sha256": "0" * 63}}),
        ("constants", [{"name": "a", "dtype": "fp32", "shape": [2], "offset": 0, "bytes": 7}]),
        ("constants", [{"name": "a", "dtype": "fp33", "shape": [2], "offset": 0, "bytes": 8}]),
        ("constants", [{"name": "a", "dtype": "fp32", "shape": [-2], "offset": 0, "bytes": 8}]),
    ],
)
def test_a_field_of_the_wrong_type_or_range_is_named(valid: dict[str, Any], key: str, value: Any):
    with pytest.raises(PefError, match=key.rstrip("s")) as caught:
        Manifest.from_json(valid | {key: value}, "here")
    assert str(caught.value).startswith("here")


def test_recurrent_state_has_fields_where_there_is_any(valid: dict[str, Any]):
    assert not {"state_bytes", "state_drafts"} & set(Manifest.from_json(valid).to_json())
    assert Manifest.from_json(valid | {"state_bytes": 0, "state_drafts": 0}).to_json() == valid
    assert list(Manifest.from_json(valid).to_json()) == list(valid)
    kept = valid | {"state_bytes": 192, "state_drafts": 8}
    assert Manifest.from_json(kept).to_json() == kept
    with pytest.raises(PefError, match="state_drafts should be a whole number from 0 to 65536, not 65537"):
        Manifest.from_json(kept | {"state_drafts": 65537})


@pytest.mark.parametrize("key", ["name", "slots", "members", "precision", "targets", "torch_version"])
def test_a_missing_field_is_named(valid: dict[str, Any], key: str):
    del valid[key]
    with pytest.raises(PefError, match=f"{key} should be"):
        Manifest.from_json(valid)


@pytest.mark.parametrize(
    "change",
    [
        {"layout": "tiles"},
        {"dtype": "int3"},
        {"dtype": "bf16"},
        {"shape": [47, 8]},
        {"shape": [48]},
        {"shape": [24, 16]},
        {"sources": []},
        {"interleave": 1},
        {"layout": "flat", "dtype": "int8"},
        {"layout": "rows", "dtype": "int4"},
        {"layout": "rows", "dtype": "int6"},
        {"sources": [{"names": [], "shape": [48, 8], "transpose": False}], "interleave": False},
        {"sources": [{"names": ["a"], "shape": [384], "transpose": True}], "interleave": False},
        {"sources": [{"names": ["a"], "shape": [24, 8], "transpose": False}] * 2},
    ],
)
def test_a_slot_that_packing_could_not_follow_is_refused(valid: dict[str, Any], change: dict[str, Any]):
    valid["slots"] = [valid["slots"][0] | change]
    with pytest.raises(PefError, match=r"slots\[0\]"):
        Manifest.from_json(valid)


def test_two_slots_of_one_name_are_refused(valid: dict[str, Any]):
    valid["slots"] = valid["slots"] * 2
    with pytest.raises(PefError, match=r"slots\[1\]: name should be a name that no other slot has"):
        Manifest.from_json(valid)


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_anywhere_is_taken_or_refused_with_one_line(data: st.DataObject, pef: Pef):
    valid = json.loads(pef.manifest.encode())
    place: Any = valid
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(JSON)
        break
    refusal = ""
    try:
        read = Manifest.from_json(valid)
        assert Manifest.from_json(read.to_json()) == read
    except PefError as error:
        refusal = str(error)
    assert "\n" not in refusal


@pytest.mark.parametrize(("precision", "instead"), [("bf16", "int8, or fp32"), ("int4-a16", "int4, or int4-a8")])
def test_a_precision_that_is_gone_is_named_with_what_to_take_instead(
    valid: dict[str, Any], precision: str, instead: str
):
    valid["precision"] = precision
    with pytest.raises(PefError, match=rf"precision '{precision}', .*: compile the model again, with {instead}$"):
        Manifest.from_json(valid)
