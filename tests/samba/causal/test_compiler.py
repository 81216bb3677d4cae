"""What gets a native program, and what keeps its sections alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bossa import samba
from bossa.cli.app import main
from bossa.errors import PefError, SambaError
from bossa.pef import Pef
from bossa.pef.module import ModulePef
from bossa.samba import causal
from bossa.samba.logging import set_log_level
from bossa.samba.sections.binding import names_of
from samba.causal.models import eager, examples_of, ids_of, inputs_of, mask_of, patched_gpt2
from samba.compiled import compiled
from samba.libraries import compiled_once


def test_a_file_has_the_program_and_the_sections_and_says_so(
    patched_pef: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    with ModulePef.open(patched_pef) as pef:
        assert pef.manifest.sections == ("fwd",)
        assert pef.native().manifest.precision == "fp32"
        assert pef.native().weights() is None
        data = bytearray(Path(patched_pef).read_bytes())
        place = data.index(bytes(pef.member("native/program.json"))) + 40
    assert main(["inspect", patched_pef]) == 0
    assert "GPT2LMHeadModel, fp32" in capsys.readouterr().out
    data[place] ^= 1
    (tmp_path / "damaged.pef").write_bytes(data)
    with pytest.raises(PefError, match=r"member 'native/program.json' has a wrong SHA-256"):
        ModulePef.open(tmp_path / "damaged.pef").verify()


def test_a_model_whose_forward_does_something_else_keeps_its_sections_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def louder(self: Any, input_ids: Any = None, attention_mask: Any = None, position_ids: Any = None) -> Any:
        """What the mask does here no trace without a mask sees: only a comparison does."""
        hidden = self.transformer(input_ids, attention_mask=attention_mask, position_ids=position_ids)[0]
        logits = self.lm_head(hidden)
        return (logits if attention_mask is None else logits * 2,)

    model = samba.from_torch_model_(patched_gpt2())
    model.forward = louder.__get__(model)
    set_log_level("info")
    try:
        ids, mask = ids_of([1, 2, 3]), mask_of(3)
        pef = compiled(tmp_path, model, inputs_of(model, ids, mask), inference=True)
    finally:
        set_log_level("warning")
    assert "the native program and the traced sections do not agree: logits of row " in capsys.readouterr().err
    with ModulePef.open(pef) as opened:
        assert opened.manifest.causal is None
        assert not [name for name in opened.names() if name.startswith("native/")]
    outputs = samba.utils.trace_graph(model, examples_of(model), pef=pef)
    found = samba.session.run(inputs_of(model, ids, mask), outputs, {"p": 0.0}, ["fwd"])[0]
    torch.testing.assert_close(samba.to_torch(found), eager(model, ids, mask), rtol=1e-4, atol=1e-5)


def test_a_program_that_keeps_recurrent_state_leaves_the_sections_alone(
    patched_pef: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Such state cannot be cut back to where a call begins to differ from the one before."""

    def with_state(*_: Any, **__: Any) -> Pef:
        members = {name: native.member(name) for name in native.names() if name != "manifest.json"}
        return Pef.build(native.manifest.to_json() | {"state_bytes": 64, "state_drafts": 0}, members)

    model = samba.from_torch_model_(patched_gpt2())
    inputs = examples_of(model)
    set_log_level("info")
    try:
        with ModulePef.open(patched_pef) as sections:
            native = sections.native()
            monkeypatch.setattr("bossa.compiler.compile_module", with_state)
            assert causal.with_native(sections, model, inputs, names_of(inputs)) is sections
    finally:
        set_log_level("warning")
    assert "has the traced sections alone: it keeps recurrent state" in capsys.readouterr().err


@pytest.mark.slow
def test_a_program_may_have_fewer_bits(patched_pef: str, tmp_path: Path):
    model = samba.from_torch_model_(patched_gpt2())
    inputs = examples_of(model)
    with ModulePef.open(patched_pef) as sections, compiled_once():
        pef = causal.with_native(sections, model, inputs, names_of(inputs), "int8").save(tmp_path / "int8.pef")
        with pytest.raises(SambaError, match="config_dict: precision 'int7' is not known"):
            causal.with_native(sections, model, inputs, names_of(inputs), "int7")
    with ModulePef.open(pef) as opened:
        assert opened.native().manifest.precision == "int8"
    outputs = samba.utils.trace_graph(model, inputs, pef=pef)
    row = list(range(1, 30))
    ids, mask = ids_of(row), mask_of(len(row))
    found = samba.to_torch(samba.session.run(inputs_of(model, ids, mask), outputs, {"p": 0.0}, ["fwd"])[0])
    expected = eager(model, ids, mask)
    apart = (found - expected)[:, : len(row)].abs().max() / expected.abs().max()
    assert 1e-4 < float(apart) < 3e-2, "weights of 8 bits, and not of 32"
