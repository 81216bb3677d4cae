"""A program and its manifest agree on the memory layout, or the program does not run."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import GPT2Config

import bossa
from bossa.errors import CompileError, PefError
from bossa.ir.slot import Slot
from bossa.pef import Pef
from bossa.runtime.program import LoadedProgram
from bossa.weights.bind import bind_blob, blob_layout

CONFIG = GPT2Config(vocab_size=67, n_embd=32, n_layer=1, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0)


@pytest.fixture(scope="module")
def pef() -> Pef:
    return bossa.compile(CONFIG)


def changed(pef: Pef, **fields: object) -> Pef:
    members = {name: pef.member(name) for name in pef.names() if name != "manifest.json"}
    return Pef.build(pef.manifest.to_json() | fields, members)


def load(pef: Pef) -> LoadedProgram:
    slots = [Slot.from_json(dict(slot)) for slot in pef.manifest.slots]
    blob = np.zeros(blob_layout(slots)[1], np.uint8)
    return LoadedProgram(pef, bind_blob(slots, memoryview(blob)), pages=1, max_rows=8)


def test_a_program_with_its_own_manifest_runs(pef):
    with load(pef) as program:
        row = np.zeros(1, np.int32)
        logits = program.step(row, row, np.array([0, 1]), np.zeros((1, 1), np.int32), row)
    assert logits.shape == (1, 67)


@pytest.mark.parametrize("field", ["page_bytes", "page_size", "vocab_size", "max_seq_length"])
@pytest.mark.parametrize("change", [-1, 1])
def test_another_size_in_the_manifest_is_refused(pef, field, change):
    value = getattr(pef.manifest, field)
    with pytest.raises(PefError, match="do not agree"):
        load(changed(pef, **{field: value + change}))


def test_another_precision_of_keys_and_values_is_refused(pef):
    with pytest.raises(PefError, match="do not agree"):
        load(changed(pef, kv_precision="bf16"))


def test_slots_in_another_order_are_refused(pef):
    with pytest.raises(PefError, match="do not agree"):
        load(changed(pef, slots=list(reversed(pef.manifest.to_json()["slots"]))))


def test_constants_that_are_left_out_are_refused(pef):
    members = {name: pef.member(name) for name in pef.names() if name != "manifest.json"} | {"constants.bin": b""}
    with pytest.raises(PefError, match="do not agree"):
        load(Pef.build(pef.manifest.to_json() | {"constants": []}, members))


def test_an_unknown_precision_of_keys_and_values_is_refused_in_one_line():
    with pytest.raises(CompileError, match=r"^kv_precision 'int4' is not known: choose from fp32, bf16, int8$"):
        bossa.compile(CONFIG, kv_precision="int4")


def test_more_positions_than_any_table_is_made_for_are_refused_at_once():
    with pytest.raises(CompileError, match="262,144 tokens at most"):
        bossa.compile(CONFIG, max_seq_length=10**9)


def test_a_table_that_the_model_does_not_have_for_every_position_is_refused_in_one_line():
    from transformers import GPTJConfig

    config = GPTJConfig(n_embd=32, n_layer=1, n_head=2, rotary_dim=8, n_positions=32, vocab_size=67)
    with pytest.raises(CompileError, match="compile with a shorter max_seq_length") as caught:
        bossa.compile(config, max_seq_length=33)
    assert "\n" not in str(caught.value)


def test_a_directory_without_a_tokenizer_gives_a_file_without_one(tmp_path):
    CONFIG.save_pretrained(tmp_path)
    assert bossa.compile(tmp_path).tokenizer_files() == {}
