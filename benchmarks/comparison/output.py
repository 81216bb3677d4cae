"""The files of a comparison: raw figures as JSON, tables as Markdown, charts as PNG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from comparison.machine import headed
from comparison.results import (
    OURS,
    Figure,
    Figures,
    goal_table,
    job_goal_table,
    job_table,
    markdown,
    rate_table,
    settings_table,
)


def read(path: Path) -> dict[str, Any]:
    """What ``write`` has kept, figures as figures."""
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for kind in ("rates", "seconds", "memory"):
        kept[kind] = [Figure(**figure) for figure in kept[kind]]
    return kept


def write(folder: Path, kept: Mapping[str, Any]) -> None:
    """Raw figures and tables; ``kept`` has ``about``, ``limits``, ``costs``, ``rates``, ``seconds``, ``memory``."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {**kept, **{kind: [asdict(figure) for figure in kept[kind]] for kind in ("rates", "seconds", "memory")}}
    (folder / "figures.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    for name, table in tables(kept).items():
        (folder / f"{name}.md").write_text(headed(kept["about"].get("measured", ""), table), encoding="utf-8")


def tables(kept: Mapping[str, Any]) -> dict[str, str]:
    """The tables by name; those of what was not measured are left out."""
    rates, seconds = Figures(kept["rates"]), Figures(kept["seconds"], higher=False)
    made = {}
    if rates.figures:
        made["rates"] = rate_table(rates)
        made["ratios"] = goal_table(rates)
        made["settings"] = settings_table(rates)
        if kept["limits"]:
            made["limits"] = limit_table(rates, kept["costs"], kept["limits"])
    if seconds.figures:
        made["processes"] = job_table(seconds, Figures(kept["memory"], higher=False))
        made["process-ratios"] = job_goal_table(seconds)
        made["process-settings"] = settings_table(seconds)
    return made


def limit_table(rates: Figures, costs: Mapping[str, Any], limits: Sequence[Mapping[str, Any]]) -> str:
    """Ours in each case beside what the machine allows: the best limits of all rounds.

    Args:
        costs: by engine and case: ``tokens``, ``bytes`` and ``operations`` of a step or prefill.
        limits: as ``Limits.to_json`` gives them, one for each round.
    """
    bandwidth = max(limit["read_bytes_per_s"] for limit in limits)
    kinds = limits[0]["operations_per_s"]
    peak = {kind: max(limit["operations_per_s"][kind] for limit in limits) for kind in kinds}
    rows = []
    for engine, cases in costs.items():
        for case, cost in cases.items():
            value = rates.median(case, engine)
            if value is None:
                continue
            reading = cost["bytes"] / bandwidth
            computing = sum(count / peak[kind] for kind, count in cost["operations"].items())
            allowed = cost["tokens"] / max(reading, computing)
            bound = "read" if reading >= computing else "multiply-add"
            megabytes = f"{cost['bytes'] / 1e6:,.1f}"
            rows.append([case, engine, f"{value:,.1f}", f"{allowed:,.1f}", f"{value / allowed:.0%}", bound, megabytes])
    head = f"Read {bandwidth / 1e9:.1f} GB/s ({limits[0]['pattern']}); multiply-add "
    head += ", ".join(f"{kind} {rate / 1e9:.0f}" for kind, rate in peak.items()) + " billion operations a second.\n\n"
    return head + markdown(["", "", "tokens/s", "limit", "share", "bound by", "MB read"], rows)


def draw(folder: Path, kept: Mapping[str, Any]) -> list[str]:
    """Charts of what was measured; the names of the files."""
    from bossa.bench.report import plotting, save

    pyplot = plotting()
    made = []
    groups = [
        ("rates.png", Figures(kept["rates"]), 1.0, "tokens/s"),
        ("processes.png", Figures(kept["seconds"], higher=False), 1.0, "seconds"),
        ("memory.png", Figures(kept["memory"], higher=False), 1e-6, "MB at the peak"),
    ]
    for name, figures, scale, unit in groups:
        if not figures.cases:
            continue
        columns = min(3, len(figures.cases))
        lines = -(-len(figures.cases) // columns)
        figure, grid = pyplot.subplots(
            lines, columns, squeeze=False, figsize=(4.5 * columns, lines * (1.2 + 0.28 * len(figures.engines)))
        )
        for axes in list(grid.flat)[len(figures.cases) :]:
            axes.set_visible(False)
        for axes, case in zip(grid.flat, figures.cases, strict=False):
            engines = [engine for engine in figures.engines if figures.rounds(case, engine)][::-1]
            values = [(figures.median(case, engine) or 0) * scale for engine in engines]
            spreads = [figures.spread(case, engine) or (0.0, 0.0) for engine in engines]
            errors = [
                [value - low * scale for value, (low, _) in zip(values, spreads, strict=True)],
                [high * scale - value for value, (_, high) in zip(values, spreads, strict=True)],
            ]
            colours = ["#b04030" if engine.startswith(OURS) else "#4878a8" for engine in engines]
            axes.barh(engines, values, xerr=errors, color=colours)
            axes.set_title(case)
            axes.set_xlabel(unit)
        figure.suptitle(kept["about"]["title"])
        figure.tight_layout()
        save(figure, folder / name)
        pyplot.close(figure)
        made.append(name)
    return made
