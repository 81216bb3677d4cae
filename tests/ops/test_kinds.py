"""Each kind of op is a file of its own, known to the parser and run by the target."""

from __future__ import annotations

from pathlib import Path

import bossa.ops
from bossa.ir.op import KINDS
from bossa.targets.cpu.emit.kinds import EMITTERS


def test_every_kind_has_its_file_and_its_emitter():
    folder = Path(bossa.ops.__file__).parent
    assert {path.stem for path in folder.glob("[a-z]*.py")} == set(KINDS)
    assert {kind.__module__.rpartition(".")[2] for kind in KINDS.values()} == set(KINDS)
    assert set(EMITTERS) == set(KINDS.values())
    for kind, emitter in EMITTERS.items():
        assert type(emitter).__module__ == f"bossa.targets.cpu.emit.{kind.keyword}"
