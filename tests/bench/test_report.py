"""Figures as text and JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from bossa.bench import report
from bossa.bench.limits import Limits
from bossa.bench.model import Cost
from bossa.bench.rates import Rate
from bossa.errors import RequestError

LIMITS = Limits("portable", 2, 10e9, "a pattern", 6e9, "another", {"fp32": 1e12, "int16": 1e12, "int8": 1e12}, 1e-6)
READING = Rate("decode", 8, 48, (800.0, 500.0, 810.0), 8, Cost(60_000_000, 20_000_000, {"fp32": 1_000_000_000}, 99))
COMPUTING = Rate(
    "prefill", 1, 128, (400.0, 600.0), 128, Cost(1_000_000, 0, {"fp32": 100_000_000_000, "int8": 28 * 10**9})
)
PROGRAM = {"name": "tiny", "precision": "fp32", "parameters": 1e6, "weight_bytes": 4e9, "target": "portable"}


def test_the_limit_is_the_slower_of_reading_and_computing():
    assert READING.limit(LIMITS) == (pytest.approx(8 / 0.008), "read")
    assert COMPUTING.limit(LIMITS) == (pytest.approx(128 / 0.128), "multiply-add")


def test_a_row_has_the_median_its_range_and_the_share_of_the_limit():
    row = report.rate_row(READING, LIMITS)
    assert len(row) == len(report.HEADER)
    assert row[:6] == ("decode 8 × 48", "800.0", "500.0 to 810.0", "1,000.0", "80%", "read")
    assert row[6:] == ("80.0", "20.0", "1.00", "99")


def test_without_limits_the_rates_still_stand():
    row = report.rate_row(COMPUTING, None)
    assert row[:6] == ("prefill 128", "500.0", "400.0 to 600.0", "", "", "")
    lines = report.notes(report.Report(PROGRAM, "random weights", 2, None, [COMPUTING], "no C++ compiler"))
    assert lines == ["no limits: no C++ compiler"]


def test_small_weights_come_with_a_warning_about_caches():
    made = report.Report({**PROGRAM, "weight_bytes": 1e6}, "", 2, LIMITS, [READING])
    assert "cache" in report.notes(made)[0]
    assert not report.notes(report.Report(PROGRAM, "", 2, LIMITS, [READING]))


def test_json_has_every_measurement_and_what_a_step_costs():
    made = report.Report(PROGRAM, "random weights", 2, LIMITS, [READING, COMPUTING])
    read = json.loads(json.dumps(made.to_json()))
    assert read["limits"]["read_bytes_per_s"] == 10e9
    first = read["cases"][0]
    assert first["measurements"] == [800.0, 500.0, 810.0]
    assert first["share"] == pytest.approx(0.8)
    assert first["bound_by"] == "read"
    assert (first["weight_bytes"], first["kv_bytes"], first["barriers"]) == (60_000_000, 20_000_000, 99)


def test_one_thread_is_not_listed_twice():
    assert [row[0] for row in report.limit_rows(LIMITS)][:2] == ["read, 2 threads", "read, 1 thread"]
    assert [row[0] for row in report.limit_rows(replace(LIMITS, threads=1))][:1] == ["read, 1 thread"]


def test_a_chart_without_matplotlib_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RequestError, match=r"pip install 'bossa\[bench\]'"):
        report.plotting()


def test_a_chart_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    target = tmp_path / "chart.png"
    report.draw(report.Report(PROGRAM, "random weights", 2, LIMITS, [READING, COMPUTING]), target)
    assert target.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RequestError, match=r"name it \.png"):
        report.draw(report.Report(PROGRAM, "", 2, None, [READING]), tmp_path / "chart.abc")


class Figure:
    """In place of matplotlib's: what it is asked to write, and where."""

    def savefig(self, file, format, **_how):  # noqa: A002 - matplotlib's name
        file.write(b"half a " + format.encode())
        if format == "txt":
            raise ValueError("Format 'txt' is not supported")


def test_a_chart_appears_when_it_is_whole(tmp_path):
    report.save(Figure(), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_bytes() == b"half a svg"
    with pytest.raises(RequestError, match=r"name it \.png"):
        report.save(Figure(), tmp_path / "b.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]
