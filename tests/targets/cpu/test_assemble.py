"""A program file's native code made anew from its row program, by itself and through ``--rebuild``."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bossa
from bossa.errors import PefError, shown
from bossa.ir.program import Loop
from bossa.pef import Pef
from bossa.pef.row_program import read_program
from bossa.targets.cpu.assemble import rebuild
from bossa.targets.cpu.emit.source import generate
from bossa.targets.cpu.plan import make_plan, pack_constants

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


INJECTED = 'x\nint y=system("touch OWNED");//'


def renamed(pef: Pef, old: str, new: str) -> Pef:
    """The file with one name of its program exchanged, wherever it stands, and the manifest's slots with it."""
    plain, quoted = re.compile(rf"(?<=[%!$]){re.escape(old)}(?![\w])"), json.dumps(old)
    lines = [plain.sub(lambda _: json.dumps(new), line.replace(quoted, json.dumps(new))) for line in text_of(pef)]
    assert lines != text_of(pef)
    slots = json.loads(json.dumps(pef.manifest.to_json()["slots"]).replace(quoted, json.dumps(new)))
    constants = json.loads(json.dumps(pef.manifest.to_json()["constants"]).replace(quoted, json.dumps(new)))
    text = {"format": 1, "program": lines}
    return changed(pef, {"program.json": json.dumps(text).encode()}, slots=slots, constants=constants)


def names_of(pef: Pef) -> list[str]:
    """Its own name, formal and actual weights, values and tables: one of each kind, and those of a tensor."""
    program = read_program(pef)
    (loop,) = (op for op in program.body if isinstance(op, Loop))
    values = [
        program.output,
        loop.carried[0].init,
        loop.carried[0].inner.name,
        loop.carried[0].step,
        loop.body[0].out.name,
    ]
    weights = [loop.weights[0][0], loop.weights[0][1][0], next(iter(program.slots))]
    return [program.name, *weights, *program.tables, *values]


def test_no_name_of_a_file_becomes_code(pef, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in names_of(pef):
        with pytest.raises(PefError, match="is not a name that may stand in a program") as caught:
            rebuild(renamed(pef, name, INJECTED))
        assert shown(caught.value) == str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_such_a_file_in_a_line(pef, weights, tmp_path):
    formal = names_of(pef)[1]
    assert "*" in formal
    path = renamed(pef, formal, INJECTED).save(tmp_path / "x.pef")
    command = [sys.executable, "-m", "bossa", "run", "--inference", "--rebuild", "--pef", str(path)]
    result = subprocess.run(
        [*command, "--model_name_or_path", str(weights), "--prompt", "a"], capture_output=True, text=True, cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("bossa: ")
    assert "is not a name that may stand in a program" in last
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pef"]


@pytest.mark.parametrize("value", ["%big[1280000]", "%big[16777216]", "%big[1099511627776]"])
def test_values_larger_than_the_manifest_knows_are_refused_before_anything_is_compiled(pef, value, monkeypatch):
    monkeypatch.setattr("bossa.targets.cpu.assemble.build_library", lambda *_: pytest.fail("it was compiled"))
    lines = text_of(pef)
    at = next(i for i, line in enumerate(lines) if line.startswith("%"))
    size = value[5:-1]
    more = [f"{value} = map 1.0", f"%small[1] = reduce sum 1 [1,{size}] {value.replace('[', '[1,')}"]
    with pytest.raises(PefError, match=r"arena_bytes_per_row|more than 4194304|at most 2147483647"):
        rebuild(with_text(pef, [*lines[:at], *more, *lines[at:]]))


@pytest.mark.parametrize("field", ["page_bytes", "page_size", "vocab_size", "max_seq_length"])
def test_sizes_of_the_manifest_that_the_program_has_not_are_refused(pef, field):
    with pytest.raises(PefError, match=rf"does not agree with the manifest \(.*{field}"):
        rebuild(changed(pef, **{field: getattr(pef.manifest, field) + 1}))
    with pytest.raises(PefError, match=r"does not agree with the manifest \(page_bytes"):
        rebuild(changed(pef, kv_precision="bf16"))


def test_tables_that_are_not_the_programs_are_refused(pef):
    constants = pef.manifest.to_json()["constants"]
    first = constants[0]
    others = [
        constants[1:],
        [*constants, first | {"name": "more"}],
        [first | {"shape": [first["bytes"] // 4]}, *constants[1:]],
        [first | {"dtype": "int32"}, *constants[1:]],
        [first | {"dtype": "bf16", "shape": [first["bytes"] // 2]}, *constants[1:]],
        [first | {"shape": [0, 2**62], "bytes": 0}, *constants[1:]],
    ]
    for other in others:
        with pytest.raises(PefError, match=r"does not agree with the manifest \(constants\)"):
            rebuild(changed(pef, constants=other))


@pytest.mark.parametrize("lines", ['"abc"', "[1, 2]", '["a\\nb"]', "{}", "[" * 5000])
def test_a_text_that_is_no_list_of_lines_is_refused(pef, lines):
    with pytest.raises(PefError, match="is not a row program"):
        rebuild(changed(pef, {"program.json": f'{{"format": 1, "program": {lines}}}'.encode()}))


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_line_that_is_mutated_is_refused_in_a_line_or_gives_a_plan(pef, data):
    """Never another error: not in reading, nor in planning and generating what was read."""
    lines = text_of(pef)
    number = data.draw(st.integers(0, len(lines) - 1))
    line = lines[number]
    begin = data.draw(st.integers(0, len(line)))
    end = data.draw(st.integers(begin, min(len(line), begin + 8)))
    piece = data.draw(st.sampled_from(["", "0", "1", "-1", "9" * 12, "[", "]", '"', "%", ",", "neg(", "inf", "|0"]))
    lines[number] = line[:begin] + piece + line[end:]
    try:
        plan = make_plan(read_program(with_text(pef, lines)))
    except PefError as error:
        refusal = str(error)
    else:
        generate(plan)
        refusal = ""
    assert shown(refusal) == refusal
