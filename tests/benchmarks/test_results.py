"""From measurements to tables."""

from __future__ import annotations

import pytest

from comparison import output
from comparison.results import (
    Figure,
    Figures,
    Goal,
    best_settings,
    goal_table,
    job_goal_table,
    job_table,
    markdown,
    rate_table,
    settings_table,
)


def figures(values, *, case="decode B1", higher=True):
    """Figures from ``{(engine, bits): [a value for each round]}``."""
    made = [
        Figure(case, engine, engine.partition(" ")[0], bits, number, value, {"batch": 8} if "peer" in engine else {})
        for (engine, bits), rounds in values.items()
        for number, value in enumerate(rounds)
    ]
    return Figures(made, higher)


RATES = figures({
    ("Bossa fp32", 32): [100, 60, 110],
    ("Bossa int8", 8): [220, 240, 230],
    ("peer a", 32): [50, 30, 60],
    ("peer b", 8): [200, 100, 210],
})  # fmt: skip


def test_a_median_is_over_rounds_and_a_ratio_within_them():
    assert RATES.median("decode B1", "Bossa fp32") == 100
    assert RATES.ratio("decode B1", "Bossa fp32", "peer a") == 2.0  # 2, 2, 1.83: the slow round was slow for both
    assert RATES.spread("decode B1", "peer b") == (100, 210)


def test_a_round_that_one_engine_missed_counts_for_neither():
    uneven = figures({("Bossa x", 8): [10, 30], ("peer a", 8): [5]})
    assert uneven.ratio("decode B1", "Bossa x", "peer a") == 2.0
    assert uneven.ratio("decode B1", "Bossa x", "peer missing") is None


def test_the_best_is_the_highest_rate_or_the_shortest_time():
    assert RATES.best("decode B1", ours=False) == "peer b"
    assert RATES.best("decode B1", ours=False, bits=32) == "peer a"
    assert RATES.best("decode B1", ours=True) == "Bossa int8"
    assert RATES.best("decode B1", ours=False, bits=4) is None
    seconds = figures({("Bossa x", 8): [1.0], ("peer a", 8): [2.0], ("peer b", 8): [3.0]}, higher=False)
    assert seconds.best("decode B1", ours=False) == "peer a"
    assert seconds.ratio("decode B1", "Bossa x", "peer a") == 2.0


def test_of_several_settings_the_best_is_taken():
    tried = [({"ubatch": 128}, 10.0), ({"ubatch": 512}, 12.0), ({"ubatch": 1024}, 12.0)]
    assert best_settings(tried) == {"ubatch": 512}
    assert best_settings(tried, higher=False) == {"ubatch": 128}


def test_the_rate_table_has_an_engine_a_row_and_marks_the_best():
    lines = rate_table(RATES).splitlines()
    assert lines[0] == "|  | decode B1 |"
    assert lines[2:] == [
        "| Bossa fp32 | 100 |",
        "| Bossa int8 | **230** |",
        "| peer a | 50.0 |",
        "| peer b | **200** |",
    ]


def test_goals_compare_ours_with_the_best_peer_and_say_what_is_missing():
    goals = (
        Goal("decode B1", 32, 32, 1.05),
        Goal("decode B1", None, None, 3.0),
        Goal("decode B1", 4, 4, 1.8),
        Goal("decode B8", 4, 4, 2.0),
    )
    lines = goal_table(RATES, goals).splitlines()[2:]
    assert lines[0] == ("| decode B1, 32 bits against 32 bits | Bossa fp32 | 100 | peer a | 50.0 | 2.00x | 1.05x |")
    assert lines[1].endswith("| Bossa int8 | 230 | peer b | 200 | 1.10x | 3.0x |")
    assert len(lines) == 3  # the last case was not measured
    assert lines[2] == "| decode B1, 4 bits against 4 bits | none |  | none |  |  | 1.8x |"


def test_whole_processes_have_seconds_and_memory_side_by_side():
    seconds = figures({("Bossa x warm", 8): [1.0, 2.0, 3.0], ("peer a", 8): [4.0, 4.0, 4.5]}, case="job", higher=False)
    memory = figures({("Bossa x warm", 8): [2e8], ("peer a", 8): [3e8]}, case="job", higher=False)
    assert job_table(seconds, memory).splitlines()[2:] == ["| Bossa x warm | 2.00 | 200 |", "| peer a | 4.00 | 300 |"]
    assert "| job | Bossa x warm | 2.00 | peer a | 4.00 | 2.00x |" in job_goal_table(seconds)


def test_the_settings_of_peers_are_listed():
    assert "| peer a | decode B1 | batch 8 |" in settings_table(RATES)
    assert "Bossa" not in settings_table(RATES)
    nested = Figure("decode B1", "peer c", "peer", 8, 0, 1.0, {"pipeline": "paged", "properties": {"GROUP": "0"}})
    assert "| peer c | decode B1 | pipeline paged, GROUP 0 |" in settings_table(Figures([nested]))


def test_a_share_of_the_limit_takes_the_best_limits_of_all_rounds():
    costs = {"Bossa fp32": {"decode B1": {"tokens": 1, "bytes": 100, "operations": {"fp32": 50}}}}
    limits = [
        {"read_bytes_per_s": bandwidth, "pattern": "a pattern", "operations_per_s": {"fp32": 100_000}}
        for bandwidth in (10_000, 20_000)
    ]
    assert "| decode B1 | Bossa fp32 | 100.0 | 200.0 | 50% | read |" in output.limit_table(RATES, costs, limits)


def test_what_was_kept_is_read_back_and_makes_the_same_tables(tmp_path):
    kept = {
        "about": {"title": "t"},
        "limits": [],
        "costs": {},
        "rates": list(RATES.figures),
        "seconds": [],
        "memory": [],
    }
    output.write(tmp_path, kept)
    again = output.read(tmp_path / "figures.json")
    assert again["rates"] == kept["rates"]
    assert output.tables(again) == output.tables(kept)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json", "rates.md", "ratios.md", "settings.md"]


def test_charts_are_drawn_of_what_was_measured(tmp_path):
    pytest.importorskip("matplotlib")
    kept = {"about": {"title": "t"}, "rates": list(RATES.figures), "seconds": [], "memory": []}
    assert output.draw(tmp_path, kept) == ["rates.png"]
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_is_markdown():
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
