"""Where results are kept, and what stands above them."""

from __future__ import annotations

import re

import pytest

import compare
import scaling
from comparison import machine, output


@pytest.mark.parametrize(
    ("name", "flags", "folder"),
    [
        ("Intel(R) Xeon(R) Platinum 8488C", ["avx2", "avx512f", "avx512_vnni", "amx_int8"], "xeon-amx"),
        ("Intel Xeon Processor (SapphireRapids)", ["avx2", "avx512f", "avx512_vnni"], "xeon-vnni"),
        ("AMD EPYC 7763 64-Core Processor", ["avx2"], "epyc-avx2"),
        ("AMD EPYC-Milan Processor", ["avx2"], "epyc-avx2"),
        ("AMD Ryzen 9 7950X", ["avx2", "avx512f"], "ryzen-avx512"),
        ("13th Gen Intel(R) Core(TM) i7-1360P", [], "core"),
        ("aarch64", ["fp", "asimd"], "aarch64-neon"),
        ("", [], "unknown"),
    ],
)
def test_a_folder_is_called_after_the_processor_s_family_and_widest_instructions(name, flags, folder):
    assert machine.machine_name(name, flags) == folder


def test_results_are_kept_by_this_machine(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor : 0\nmodel name\t: AMD EPYC 7763\nflags\t\t: fma avx2\n\nprocessor : 1\nflags : amx_int8\n"
    )
    monkeypatch.setattr(machine, "CPUINFO", cpuinfo)
    assert machine.results_folder("gpt2") == machine.RESULTS / "epyc-avx2" / "gpt2"
    assert re.fullmatch(r"AMD EPYC 7763, 2 threads; Bossa \S+( \(\S+\))? of \d{4}-\d\d-\d\d", machine.measured(2))
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "missing")
    assert machine.processor()


def test_what_a_table_is_of_stands_above_it_and_can_be_taken_off():
    text = machine.headed("A processor, 2 threads", "| a |\n| --- |\n")
    assert text == "> A processor, 2 threads.\n\n| a |\n| --- |\n"
    assert machine.body(text) == "| a |\n| --- |\n"
    assert machine.body(machine.headed("", "| a |\n")) == "| a |\n"
    assert machine.headed(["one", "two"], "x\n") == "> one.\n> two.\n\nx\n"


def test_a_comparison_without_a_place_goes_to_the_model_s_folder_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    engine = type("Engine", (), {"name": "llama.cpp q8_0", "family": "llama.cpp", "model": tmp_path / "a.gguf"})
    monkeypatch.setattr(compare, "find_engines", lambda *_: ([engine], []))
    monkeypatch.setattr(compare, "machine_limits", lambda _: [])
    figure = output.Figure("decode B1", "llama.cpp q8_0", "llama.cpp", 8, 0, 12.0, {})
    monkeypatch.setattr(compare, "run_rates", lambda *given: given[-1]([figure]))
    monkeypatch.setattr(compare, "draw", lambda folder, kept: output.write(folder, kept))
    assert compare.main(["--work", str(tmp_path), "--model", str(tmp_path / "gpt2"), "--threads", "2"]) == 0
    folder = machine.results_folder("gpt2")
    assert folder.parent.parent == tmp_path
    head, _, table = (folder / "rates.md").read_text().partition("\n\n")
    assert head == f"> {machine.measured(2)}; gpt2, 5 rounds."
    assert "| llama.cpp q8_0 | **12.0** |" in table


def test_points_say_when_each_of_them_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "draw", lambda *_: [])
    figures = {"cases": [{"kind": "decode", "batch": 1, "tokens_per_s": 80.0, "measurements": [80.0]}]}
    sweep = scaling.sweeps([1], [], [], [])[0]
    [point] = scaling.points(sweep, "fp32", figures, "a machine of a day")
    scaling._write([point], tmp_path)
    assert (tmp_path / "scaling.md").read_text().startswith("> a machine of a day.\n\nGPT-2 small, fp32\n")
