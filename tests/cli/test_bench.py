"""bossa bench, on a real program."""

from __future__ import annotations

import json
import sys

import pytest

from bossa.bench import limits

QUICK = ["--prompt-lengths", "16", "--context", "8", "--repeat", "2", "--seconds", "0"]


def test_a_program_without_weights_is_measured_with_random_ones(bossa, tiny_pef, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "LARGEST", limits.SMALLEST)
    target = tmp_path / "figures.json"
    result = bossa("bench", tiny_pef, "--batch", "1,2", *QUICK, "--threads", "1", "--json", target)
    assert result.code == 0, result.err
    assert "random weights" in result.out
    assert "GB/s" in result.out
    figures = json.loads(target.read_text())
    assert [(case["kind"], case["batch"]) for case in figures["cases"]] == [
        ("prefill", 1), ("decode", 1), ("decode", 2),
    ]  # fmt: skip
    assert all(case["tokens_per_s"] > 0 and case["share"] > 0 for case in figures["cases"])
    assert figures["limits"]["threads"] == figures["threads"] == 1


def test_given_weights_are_used(bossa, tiny_pef, tiny_model, weight_cache, monkeypatch):
    monkeypatch.setenv("BOSSA_CACHE", str(weight_cache))
    result = bossa("bench", tiny_pef, "--model_name_or_path", tiny_model, "--batch", "1", *QUICK, "--no-limits")
    assert result.code == 0, result.err
    assert f"weights of {tiny_model}" in result.out
    assert "GB/s" not in result.out


def test_where_there_is_no_compiler_the_limits_are_left_out_and_it_is_said(bossa, tiny_pef, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    limits._library.cache_clear()
    result = bossa("bench", tiny_pef, "--batch", "1", *QUICK)
    assert result.code == 0, result.err
    assert "no limits: $CXX is 'no-such-compiler'" in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "1,x"], "'1,x' is not a list of counts"),
        (["--batch", "0"], "'0' is not a list of counts"),
        (["--prompt-lengths", "128"], "the program was compiled for 128"),
        (["--context", "125"], "leave no room to decode"),
        (["--batch", "4", "--context", "60", "--memory", "1KB"], "1,000 bytes of memory are too few"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(bossa, tiny_pef, arguments, message):
    result = bossa("bench", tiny_pef, "--no-limits", *arguments)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_a_chart_is_refused_before_anything_is_measured_where_it_cannot_be_drawn(bossa, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = bossa("bench", tmp_path / "missing.pef", "--chart", tmp_path / "a.png")
    assert result.code == 2
    assert "bossa[bench]" in result.err


@pytest.mark.parametrize("option", ["--json", "--chart"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(bossa, tmp_path, monkeypatch, option):
    monkeypatch.setattr("bossa.bench.report.plotting", lambda: None)
    result = bossa("bench", tmp_path / "missing.pef", option, tmp_path / "missing" / "a.png")
    assert result.code == 2
    assert result.err == f"bossa: {tmp_path / 'missing'}: No such file or directory\n"
