"""The table of one machine in the performance document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import paste
import summary
from comparison.machine import RESULTS, body

DOCUMENT = Path(paste.__file__).parent.parent / "docs" / "performance.md"


@pytest.fixture
def folder(tmp_path):
    tables = {
        "rates": ["|  | decode B1 |", "| Bossa fp32 | 50.0 |", "| Bossa int4-x | **90** |", "| peer q8 | **60** |"],
        "ratios": [
            "|  | ours |  | best peer |  | ratio | aim |",
            "| decode B1, 32 bits against 32 bits | Bossa fp32 | 50.0 | peer | 40 | 1.25x | 1x |",
            "| decode B1, any precision against any precision | Bossa int4-x | 90 | peer q8 | 60 | 1.50x | 1x |",
        ],
        "processes": [
            "|  | 20 prompts, s | MB |",
            "| Bossa fp32 cold | 3.0 | 9 |",
            "| Bossa fp32 warm | 2.0 | 9 |",
            "| peer q8 | 2.5 | 7 |",
        ],
        "process-ratios": [
            "|  | ours | s | best peer | s | ratio |",
            "| 20 prompts | Bossa fp32 cold | 3.0 | peer q8 | 2.5 | 19.83x |",
            "| 20 prompts | Bossa int4-x warm | 1.0 | peer q8 | 2.5 | 10.50x |",
            "| 20 prompts | Bossa fp32 warm | 2.0 | peer q8 | 2.5 | 1.25x |",
        ],
        "quality": ["|  | perplexity | against fp32 | MB |", "| Bossa fp32 | 20 | +0.00% | 5 |"],
    }
    for name, (head, *rows) in tables.items():
        (tmp_path / f"{name}.md").write_text("\n".join(["> A processor.", "", head, "| --- |", *rows, ""]))
    return tmp_path


def test_quality_stands_beside_speed_and_ratios_below(folder):
    assert summary.summary(folder, folder).splitlines() == [
        "|  | perplexity, against fp32 | decode B1 | 20 prompts, s |",
        "| --- | --- | --- | --- |",
        "| Bossa fp32 | +0.00% | 50.0 | 2.0 |",
        "| Bossa int4-x |  | **90** |  |",
        "| peer q8 |  | **60** | 2.5 |",
        "| ratio, 32 bits |  | 1.25x |  |",
        "| ratio, any precision |  | 1.50x | 10.50x |",
    ]


def test_what_is_left_out_is_in_no_row_and_no_ratio(folder):
    lines = summary.summary(folder, None, ["int4-x"]).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| Bossa fp32", "| peer q8", "| ratio, 32 bits", "| ratio, any precision",
    ]  # fmt: skip
    assert lines[-1] == "| ratio, any precision |  |  | 1.25x |"


def test_the_summary_is_written_with_what_the_rates_are_of(folder, capsys):
    assert summary.main([str(folder), "--quality", str(folder)]) == 0
    text = (folder / "summary.md").read_text()
    assert text.startswith("> A processor.\n\n|  | perplexity, against fp32 |")
    assert body(text) == capsys.readouterr().out
    with pytest.raises(SystemExit):
        summary.main([str(folder / "missing")])
    assert "has no rates.md" in capsys.readouterr().err


def test_every_table_in_the_performance_document_is_one_of_the_results():
    places = paste.PLACE.findall(DOCUMENT.read_text(encoding="utf-8"))
    assert places
    for _, group, name, table, _ in places:
        # `xeon-amx-gpt2/summary` is results/xeon-amx/gpt2/summary.md
        machine = next(path for path in RESULTS.iterdir() if path.is_dir() and group.startswith(f"{path.name}-"))
        kept = (machine / group.removeprefix(f"{machine.name}-") / f"{name}.md").read_text(encoding="utf-8")
        assert kept.startswith("> "), f"{group}/{name} does not say what it is of"
        assert table.strip() == body(kept).strip(), f"{group}/{name} is not as it was measured: use paste.py"


def test_what_the_performance_document_says_of_each_precision_was_measured():
    text = DOCUMENT.read_text(encoding="utf-8").partition("## Precisions\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)`[^|]*\| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    assert len(rows) > 1
    measured = {name: rest for name, _, *rest in summary.read_table(RESULTS / "xeon-amx" / "quality" / "quality.md")}
    for precision, *figures in rows[1:]:
        assert figures in [measured.get(f"Bossa {precision}"), measured.get(f"Bossa {precision}-kv8")], precision
