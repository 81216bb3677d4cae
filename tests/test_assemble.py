"""A program file's native code made anew from its row program, by itself and through ``--rebuild``."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bossa
from bossa.assemble import read_program, rebuild
from bossa.codegen.plan import make_plan, pack_constants
from bossa.codegen.source import generate
from bossa.errors import PefError
from bossa.pef import Pef

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def bloom():
    """A model whose attention has a bias (ALiBi), which lies by head in the file, and whose tables are not square."""
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4)
    return BloomForCausalLM(config)


@pytest.fixture(scope="module")
def pef(bloom):
    return bossa.compile(bloom.config, max_seq_length=48, batch_size=2)


@pytest.fixture(scope="module")
def weights(bloom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bloom")
    bloom.save_pretrained(folder)
    return folder


def changed(pef: Pef, members=(), **fields) -> Pef:
    held = {name: pef.member(name) for name in pef.names() if name != "manifest.json"}
    return Pef.build(pef.manifest.to_json() | fields, held | dict(members))


def text_of(pef: Pef) -> list[str]:
    return json.loads(pef.program_json())["program"]


def with_text(pef: Pef, lines: list[str], form: int = 1) -> Pef:
    return changed(pef, {"program.json": json.dumps({"format": form, "program": lines}).encode()})


def test_the_program_in_a_file_is_the_one_that_it_was_compiled_from(pef):
    program = read_program(pef)
    assert pack_constants(program) == bytes(pef.constants())
    assert generate(make_plan(program)) == pef.source()
    assert any(array.ndim == 2 and array.shape[0] != array.shape[1] for array in program.tables.values())


def test_a_rebuilt_program_gives_the_same_bits_and_uses_no_native_code_of_the_file(pef, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("BOSSA_CACHE", str(tmp_path))
    own = pef.manifest.targets[0]
    held = {name: bytes(pef.member(name)) for name in pef.names() if name != "manifest.json"}
    del held[f"program.{own}.so"]
    held |= {"program.sparc.so": b"\x7fELF of another world", "program.cc": b"#error not to be used"}
    foreign = Pef.build(pef.manifest.to_json() | {"targets": ["sparc"]}, held)
    ids = [5, 6, 7, 8, 9]
    with bossa.load(pef, weights=weights, threads=1) as model:
        expected = model.logits(ids)
    with pytest.raises(PefError, match=r"compiled for sparc, which this CPU does not run.*--rebuild"):
        bossa.load(foreign, weights=weights)
    with bossa.load(foreign, weights=weights, threads=1, rebuild=True) as model:
        np.testing.assert_array_equal(model.logits(ids), expected)


def test_a_rebuilt_file_holds_this_machines_program_and_all_else_as_it_was(pef):
    again = rebuild(changed(pef, {"weights.bin": b"kept"}))
    assert again.manifest.targets == pef.manifest.targets
    assert bytes(again.member("weights.bin")) == b"kept"
    assert again.source() == pef.source()
    assert again.where == "the new PEF"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"format": 1}', b'{"format": 1, "program": [1]}', b'{"format": 1, "program": []}']
)
def test_a_program_that_cannot_be_read_is_refused(pef, content):
    with pytest.raises(PefError, match=r"program\.json"):
        rebuild(changed(pef, {"program.json": content}))


def test_a_program_of_another_format_is_refused(pef):
    with pytest.raises(PefError, match="format 2, and this Bossa reads 1"):
        rebuild(with_text(pef, text_of(pef), form=2))


def test_a_line_that_does_not_parse_is_named(pef):
    with pytest.raises(PefError, match=f"line {len(text_of(pef)) + 1}: expected"):
        rebuild(with_text(pef, [*text_of(pef), "nonsense"]))


def test_a_program_that_the_manifest_does_not_describe_is_refused(pef):
    lines = text_of(pef)
    with pytest.raises(PefError, match="does not agree with the manifest"):
        rebuild(with_text(pef, [lines[0].replace("vocabulary 97", "vocabulary 98"), *lines[1:]]))
    slot = next(line for line in lines if line.startswith("slot ") and "word_embeddings" in line)
    other = with_text(pef, [line.replace("word_embeddings", "other") if line == slot else line for line in lines])
    with pytest.raises(PefError, match="name other weights"):
        rebuild(other)


def test_names_that_would_leave_a_comment_of_the_source_are_refused(pef):
    lines = text_of(pef)
    name = json.dumps("x\nint run_me();//")
    with pytest.raises(PefError, match="is not a name that may stand in a program"):
        rebuild(with_text(pef, [lines[0].replace(lines[0].split()[1], name), *lines[1:]]))
