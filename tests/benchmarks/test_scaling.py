"""Points, bends and tables of the scaling charts."""

from __future__ import annotations

import pytest

import scaling
from scaling import Point


def case(kind, batch, context, rate, bound="read"):
    return {
        "kind": kind, "batch": batch, "context": context, "tokens_per_s": rate, "measurements": [rate],
        "limit_tokens_per_s": 2 * rate, "share": 0.5, "bound_by": bound,
    }  # fmt: skip


FIGURES = {"cases": [case("prefill", 1, 512, 900.0), case("decode", 1, 49, 80.0), case("decode", 8, 49, 300.0)]}


def test_every_sweep_takes_its_own_points():
    found = {
        (sweep.chart, sweep.line): [(point.x, point.rate) for point in scaling.points(sweep, "fp32", FIGURES)]
        for sweep in scaling.sweeps([1, 8], [512], [], [24])
    }
    assert found == {
        ("batch", "GPT-2 small"): [(1, 80.0), (8, 300.0)],
        ("prompt length", "GPT-2 small"): [(512, 900.0)],
        ("layers", "prefill 512"): [(24, 900.0)],
        ("layers", "decode B1"): [(24, 80.0)],
        ("layers", "decode B8"): [(24, 300.0)],
    }


def test_an_empty_list_leaves_a_chart_out():
    assert {sweep.chart for sweep in scaling.sweeps([], [], [8000], [])} == {"prompt length"}


def test_a_sweep_whose_points_are_all_there_is_not_measured_again():
    batch, *_ = scaling.sweeps([1, 8], [], [], [])
    assert scaling._is_done(batch, "fp32", {("batch", "GPT-2 small", "fp32", x) for x in (1, 8)})
    assert not scaling._is_done(batch, "fp32", {("batch", "GPT-2 small", "fp32", 1)})
    assert not scaling._is_done(batch, "int8", {("batch", "GPT-2 small", "fp32", x) for x in (1, 8)})


LINE = [
    Point("batch", "GPT-2 small", "fp32", 8, 350.0, 400.0, "multiply-add"),
    Point("batch", "GPT-2 small", "fp32", 1, 80.0, 90.0, "read"),
    Point("batch", "GPT-2 small", "fp32", 4, 240.0, 300.0, "read"),
]


def test_a_table_is_in_the_order_of_x_and_says_where_the_limit_changes():
    text = scaling.tables(LINE)
    assert text.splitlines()[2:8] == [
        "| batch | tokens/s | limit | share | bound by |",
        "| --- | --- | --- | --- | --- |",
        "| 1 | 80.0 | 90.0 | 89% | read |",
        "| 4 | 240.0 | 300.0 | 80% | read |",
        "| 8 | 350.0 | 400.0 | 88% | multiply-add |",
        "",
    ]
    assert "Bound by read up to 4, by multiply-add from 8 on." in text


def test_points_without_limits_are_listed_too():
    text = scaling.tables([Point("batch", "GPT-2 small", "fp32", 1, 80.0, None)])
    assert "| 1 | 80.0 |  |  |  |" in text


def test_a_chart_for_each_thing_that_grows(tmp_path):
    pytest.importorskip("matplotlib")
    other = [Point("prompt length", "Llama, 135M", "int8", 8000, 500.0, None)]
    assert scaling.draw([*LINE, *other], tmp_path) == ["batch.png", "prompt-length.png"]
    assert (tmp_path / "batch.png").read_bytes().startswith(b"\x89PNG")
