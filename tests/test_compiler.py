"""bossa.compile from Python: what it is given is looked at before torch loads; what packs the weights of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bossa
from bossa import compiler
from bossa.errors import BossaError
from bossa.formats import int8


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


@pytest.mark.end_to_end
def test_a_bundle_is_packed_by_the_program_itself_to_the_bytes_of_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support import zoo

    zoo.build(zoo.MODELS["llama"].config()).save_pretrained(tmp_path / "model")

    def bundled(cache: str) -> bytes:
        monkeypatch.setenv("BOSSA_CACHE", str(tmp_path / cache))  # what is packed is kept
        pef = bossa.compile(tmp_path / "model", precision="int8", max_seq_length=zoo.LENGTH, bundle=True)
        weights = pef.weights()
        assert weights is not None
        return bytes(weights)

    with monkeypatch.context() as patch:
        patch.setattr(int8, "quantize", None)
        native = bundled("native")
    monkeypatch.setattr(compiler, "best_target", lambda targets: None)  # as where this machine runs none of them
    assert bundled("numpy") == native
