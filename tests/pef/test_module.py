"""The manifest of a traced module."""

from __future__ import annotations

from typing import Any

import pytest

from bossa.errors import PefError
from bossa.pef import Pef, TracedModule
from bossa.pef.module import ModuleManifest, ModulePef

BACKWARD = {
    "operands": [{"source": "saved", "number": 0, "stride": [3, 1]}, {"source": "tangent", "number": 0, "stride": []}],
    **{"saved": 1, "tangents": [0], "gradients": ["lin.weight"]},
}
MANIFEST: dict[str, Any] = {
    **{"kind": "traced module", "name": "net", "architecture": "Net", "bossa_version": "0.1.0"},
    **{"torch_version": "2.13.0", "target": "x86-64-v3", "features": ["amx_tile"], "inference": False},
    **{"parameters": 6, "sections": ["fwd", "bckwd"], "dropped": [True, False], "backward": BACKWARD},
}
MEMBERS = {"graph.txt": b"input x float32[2]\n", "fwd.so": b"f", "bckwd.so": b"b", "bckwd.json": b"{}"}


def test_a_file_gives_back_what_it_was_built_of(tmp_path):
    path = ModulePef.build(MANIFEST, MEMBERS).save(tmp_path / "net.pef")
    with ModulePef.open(path) as opened:
        opened.verify()
        assert opened.manifest.dropped == (True, False)
        assert opened.manifest.backward.operands == (("saved", 0, (3, 1)), ("tangent", 0, ()))
        assert ModuleManifest.from_json(opened.manifest.to_json()) == opened.manifest
        assert opened.graph() == ["input x float32[2]"]
        assert opened.section("fwd") == (b"f", None)
        assert opened.section("bckwd") == (b"b", b"{}")


def test_neither_kind_is_taken_for_the_other(tmp_path, pef: Pef):
    with pytest.raises(TracedModule, match="holds a traced module, not a causal language model"):
        Pef.open(ModulePef.build(MANIFEST, MEMBERS).save(tmp_path / "net.pef"))
    with pytest.raises(PefError, match=r"a language model, made by 'bossa compile'.*: run it with 'bossa run', or"):
        ModulePef.open(pef.save(tmp_path / "tiny.pef"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dropped": [1]}, "dropped should be a list of true and false"),
        ({"inference": 0}, "inference should be true or false"),
        ({"features": "avx"}, "features should be a list"),
        ({"backward": []}, "backward should be a JSON object"),
        ({"backward": {**BACKWARD, "tangents": [-1]}}, "tangents should be a list of whole numbers"),
        (
            {"backward": {**BACKWARD, "operands": [{"source": "disk", "number": 0, "stride": []}]}},
            "source should be",
        ),
        ({"format_version": 9}, "made by a newer Bossa"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], reason: str):
    valid = ModulePef.build(MANIFEST, MEMBERS).manifest.to_json()
    with pytest.raises(PefError, match=reason):
        ModuleManifest.from_json(valid | change)
