"""bossa inspect: what is in a program file."""

from __future__ import annotations

import json
import os

import pytest

from bossa.ir.slot import Slot, Source
from bossa.pef import FORMAT_VERSION, Pef
from bossa.pef.module import ModulePef
from support.terminal import read_all


@pytest.fixture
def pef(tmp_path):
    """A program file of two layers, whose library is no library: nothing of it is run."""
    slots = [
        Slot("embed", "rows", (100, 16), "fp32", (Source(("wte.weight",), (100, 16)),)),
        *(
            Slot(f"layers.{layer}.qkv", "panels", (48, 16), "fp32", (Source((f"h.{layer}.qkv.weight",), (48, 16)),))
            for layer in range(2)
        ),
    ]
    manifest = {
        **{
            "format_version": FORMAT_VERSION,
            "bossa_version": "0.1.0",
            "name": "tiny",
            "architecture": "TinyLMHeadModel",
        },
        **{"model_type": "tiny", "precision": "fp32", "max_seq_length": 100, "batch_size": 4, "vocab_size": 100},
        **{
            "page_size": 32,
            "page_bytes": 8192,
            "kv_precision": "int8",
            "arena_bytes_per_row": 512,
            "targets": ["portable"],
        },
        **{"slots": [slot.to_json() for slot in slots], "constants": [], "ignored_tensors": [], "parameters": 3136},
        "sections": [
            {"name": "layer", "kind": "loop", "text": "2 times:" + "." * 90},
            {"name": "head", "kind": "once", "text": ""},
        ],
        **{"torch_version": "2.13.0", "transformers_version": "5.23.0"},
    }
    members = {
        "program.json": b'{"format": 1, "program": ["program \\"tiny\\"", "  %a = select %b"]}',
        "program.cc": b"int main() {}\n",
        "program.portable.so": b"\x7fELF",
        "constants.bin": b"",
        "config.json": b"{}",
        "generation_config.json": b"{}",
    }
    path = tmp_path / "tiny.pef"
    Pef.build(manifest, members).save(path)
    return path


def test_the_summary_has_the_facts_sections_slots_arena_and_kv_sizes(bossa, pef):
    result = bossa("inspect", pef)
    assert (result.code, result.err) == (0, "")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    for expected in (
        "architecture TinyLMHeadModel (tiny)",
        "parameters 3,136",
        "keys and values int8",
        "weights not in the file",
        "packed weights 12.5 KB",
        "arena, a row of a step 512 B",
        "KV, a page of 32 positions 8.2 KB",
        "KV, a sequence of full length 32.8 KB",
        "KV, 4 of them 131.1 KB",
        "2 sections",
        "layer loop 2 times:" + "." * 71 + "…",
        "3 weight slots",
        "embed rows fp32 100×16 6.4 KB wte.weight",
        "2 × layers.*.qkv panels fp32 48×16 3.1 KB h.*.qkv.weight",
        "program.cc 14 B",
    ):
        assert expected in lines


def test_the_summary_has_the_recurrent_state_of_a_program_that_keeps_any(bossa, pef, tmp_path):
    assert "recurrent" not in bossa("inspect", pef).out
    with Pef.open(pef) as opened:
        members = {name: opened.member(name) for name in opened.names() if name != "manifest.json"}
        manifest = opened.manifest.to_json() | {"state_bytes": 64_000, "state_drafts": 8}
    Pef.build(manifest, members).save(tmp_path / "state.pef")
    lines = [" ".join(line.split()) for line in bossa("inspect", tmp_path / "state.pef").out.splitlines()]
    assert "recurrent state, a sequence 64.0 KB" in lines


def test_the_summary_says_that_a_program_takes_adapters(bossa, pef, tmp_path):
    assert "adapters" not in bossa("inspect", pef).out
    with Pef.open(pef) as opened:
        members = {name: opened.member(name) for name in opened.names() if name != "manifest.json"}
        manifest = opened.manifest.to_json() | {"adapters": True}
    Pef.build(manifest, members).save(tmp_path / "adapters.pef")
    lines = [" ".join(line.split()) for line in bossa("inspect", tmp_path / "adapters.pef").out.splitlines()]
    assert "adapters taken by --adapter" in lines
    refused = bossa("run", "--pef", pef, "--prompt", "a", "--adapter", tmp_path)
    assert refused.code == 2
    assert refused.err.endswith(
        ": takes no adapters: compile the model again with --adapters (in Python adapters=True)\n"
    )


def test_the_source_is_printed_as_it_is(bossa, pef):
    assert bossa("inspect", pef, "--source").out == "int main() {}\n"


def test_the_row_program_is_printed_line_by_line(bossa, pef):
    assert bossa("inspect", pef, "--program").out == 'program "tiny"\n  %a = select %b\n'


def test_the_manifest_is_printed_as_json(bossa, pef):
    manifest = json.loads(bossa("inspect", pef, "--json").out)
    assert (manifest["name"], len(manifest["slots"])) == ("tiny", 3)


def test_a_file_that_is_not_there_is_one_line(bossa, tmp_path):
    result = bossa("inspect", tmp_path / "nothing.pef")
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert "nothing.pef" in result.err


@pytest.fixture
def module(tmp_path):
    """The file of a traced module, whose code is none."""
    manifest = {
        **{"kind": "traced module", "name": "net", "architecture": "Net", "bossa_version": "0.1.0"},
        **{"torch_version": "2.13.0", "target": "x86-64-v3", "features": [], "inference": True, "parameters": 6},
        **{"sections": ["fwd"], "dropped": [False], "backward": None},
    }
    graph = "input x float32[2]\nparameter w float32[3,2]\noutput 0 float32[3]\nlin: %2 = aten.mv(%1, %0) -> float32[3]"
    return ModulePef.build(manifest, {"graph.txt": graph.encode(), "fwd.so": b"none"}).save(tmp_path / "net.pef")


def test_a_traced_module_is_explained_and_its_graph_shown(bossa, module):
    text = bossa("inspect", module).out
    assert "traced module  Net" in text
    assert "inference" in text
    assert "input x float32[2]" in text
    assert "operators   1" in text
    assert bossa("inspect", module, "--program").out.splitlines()[-1].startswith("lin: %2 = aten.mv")
    assert json.loads(bossa("inspect", module, "--json").out)["kind"] == "traced module"


def test_a_traced_module_has_no_source_and_cannot_be_run(bossa, module):
    refused = bossa("inspect", module, "--source")
    assert refused.code == 2
    assert "a traced module keeps no source" in refused.err
    refused = bossa("run", "--pef", module, "--prompt", "a")
    assert refused.code == 2
    assert "holds a traced module, not a causal language model" in refused.err
    assert len(refused.err.splitlines()) == 1


EVIL = "a\x1b]0;owned\x07\u202e"


@pytest.fixture
def evil(pef, tmp_path):
    """The same file with names and source that would act on a terminal."""
    opened = Pef.open(pef)
    members = {name: bytes(opened.member(name)) for name in opened.names() if name != "manifest.json"}
    members["program.cc"] = f"// {EVIL}\r\n".encode()
    manifest = opened.manifest.to_json()
    manifest |= {"architecture": EVIL, "model_type": EVIL, "torch_version": EVIL}
    manifest["sections"] = [{"name": EVIL, "kind": "once", "text": EVIL}]
    return Pef.build(manifest, members).save(tmp_path / "evil.pef")


@pytest.mark.parametrize("option", [[], ["--source"], ["--program"], ["--json"]])
def test_nothing_in_a_file_acts_on_a_terminal(evil, monkeypatch, option):
    from bossa.cli import main

    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        assert main(["inspect", str(evil), *option]) == 0
    shown = read_all(leader)
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    assert option == ["--program"] or "owned" in shown


def test_elsewhere_the_source_is_byte_for_byte_and_the_summary_is_escaped(bossa, evil):
    assert bossa("inspect", evil, "--source").out.encode() == f"// {EVIL}\r\n".encode()
    out = bossa("inspect", evil).out
    assert "\\x1b]0;owned\\x07\\u202e" in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
