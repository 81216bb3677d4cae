"""From measurements to tables: medians, the best setting, the best peer, ratios within a round."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OURS = "Bossa"


@dataclass(frozen=True)
class Figure:
    """One measurement of an engine in a round: tokens a second, or seconds, or bytes."""

    case: str
    engine: str
    family: str
    bits: int
    round: int
    value: float
    settings: Mapping[str, Any]


def best_settings(tried: Sequence[tuple[dict[str, Any], float]], *, higher: bool = True) -> dict[str, Any]:
    """The settings with the best value; the first of equals."""
    return (max if higher else min)(tried, key=lambda pair: pair[1])[0]


@dataclass(frozen=True)
class Figures:
    """All measurements of one kind, of which higher or lower values are better."""

    figures: Sequence[Figure]
    higher: bool = True

    @property
    def cases(self) -> list[str]:
        return list(dict.fromkeys(figure.case for figure in self.figures))

    @property
    def engines(self) -> list[str]:
        return list(dict.fromkeys(figure.engine for figure in self.figures))

    def rounds(self, case: str, engine: str) -> dict[int, float]:
        """An engine's values in a case by round; the best where a round has several."""
        values: dict[int, float] = {}
        for figure in self.figures:
            if (figure.case, figure.engine) == (case, engine):
                known = values.get(figure.round)
                values[figure.round] = figure.value if known is None else self._better((known, figure.value))
        return values

    def median(self, case: str, engine: str) -> float | None:
        values = self.rounds(case, engine)
        return statistics.median(values.values()) if values else None

    def spread(self, case: str, engine: str) -> tuple[float, float] | None:
        """The lowest and the highest round."""
        values = self.rounds(case, engine).values()
        return (min(values), max(values)) if values else None

    def best(self, case: str, *, ours: bool, bits: int | None = None, names: Iterable[str] = ()) -> str | None:
        """The engine with the best median: of ours or of the peers, of so many bits a weight if that is said."""
        names = set(names)
        able = {
            figure.engine
            for figure in self.figures
            if figure.case == case
            and (figure.family == OURS) == ours
            and (bits is None or figure.bits == bits)
            and (not names or figure.engine in names)
        }
        medians = {engine: self.median(case, engine) for engine in sorted(able)}
        known = {engine: value for engine, value in medians.items() if value is not None}
        return (max if self.higher else min)(known, key=lambda engine: known[engine]) if known else None

    def ratio(self, case: str, ours: str, peer: str) -> float | None:
        """How many times better ours is: the median of the ratios within each round that has both."""
        a, b = self.rounds(case, ours), self.rounds(case, peer)
        ratios = [a[n] / b[n] if self.higher else b[n] / a[n] for n in a if n in b]
        return statistics.median(ratios) if ratios else None

    def _better(self, values: Iterable[float]) -> float:
        return (max if self.higher else min)(values)


@dataclass(frozen=True)
class Goal:
    """A comparison: ours (best, or of so many bits) with the best peer (any, or of so many bits)."""

    case: str
    ours: int | None
    peers: int | None
    wanted: float


GOALS = (
    Goal("decode B1", 32, 32, 1.05),
    Goal("decode B1", 8, 8, 1.5),
    Goal("decode B1", 4, 4, 1.8),
    Goal("decode B8", None, None, 3.0),
    Goal("decode B32", None, None, 2.4),
    Goal("decode B32", 32, 32, 1.3),
    Goal("prefill 128", None, None, 1.5),
    Goal("prefill 512", None, None, 1.5),
    Goal("prefill 1000", None, None, 1.7),
    Goal("prefill 512", 32, 32, 1.1),
)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def rate_table(figures: Figures) -> str:
    """An engine a row, a case a column: medians of the rounds; the best of each case in bold."""
    rows = []
    bests = {case: {figures.best(case, ours=ours) for ours in (True, False)} for case in figures.cases}
    for engine in figures.engines:
        row = [engine]
        for case in figures.cases:
            value = figures.median(case, engine)
            text = "" if value is None else _number(value)
            row.append(f"**{text}**" if engine in bests[case] else text)
        rows.append(row)
    return markdown(["", *figures.cases], rows)


def goal_table(figures: Figures, goals: Sequence[Goal] = GOALS) -> str:
    """Ours beside the best peer, with the ratio that is aimed at, for the cases that were measured."""
    rows = []
    for goal in goals:
        if goal.case not in figures.cases:
            continue
        ours = figures.best(goal.case, ours=True, bits=goal.ours)
        peer = figures.best(goal.case, ours=False, bits=goal.peers)
        words = f"{goal.case}, {_bits(goal.ours)} against {_bits(goal.peers)}"
        if ours is None or peer is None:
            rows.append([words, ours or "none", "", peer or "none", "", "", f"{goal.wanted}x"])
            continue
        ratio = figures.ratio(goal.case, ours, peer)
        values = [_number(figures.median(goal.case, name) or 0) for name in (ours, peer)]
        shown = "" if ratio is None else f"{ratio:.2f}x"
        rows.append([words, ours, values[0], peer, values[1], shown, f"{goal.wanted}x"])
    return markdown(["", "ours", "", "best peer", "", "ratio", "aim"], rows)


def job_table(seconds: Figures, memory: Figures) -> str:
    """An engine a row: seconds and peak memory of each whole process."""
    header, rows = [""], []
    for case in seconds.cases:
        header += [f"{case}, s", "MB at the peak"]
    for engine in seconds.engines:
        row = [engine]
        for case in seconds.cases:
            taken, held = seconds.median(case, engine), memory.median(case, engine)
            row += ["" if taken is None else f"{taken:.2f}", "" if held is None else f"{held / 1e6:,.0f}"]
        rows.append(row)
    return markdown(header, rows)


def job_goal_table(seconds: Figures) -> str:
    """Each of ours beside the best peer of all."""
    rows = []
    for case in seconds.cases:
        peer = seconds.best(case, ours=False)
        for ours in (engine for engine in seconds.engines if engine.startswith(OURS)):
            taken = seconds.median(case, ours)
            if taken is None or peer is None:
                continue
            ratio = seconds.ratio(case, ours, peer)
            shown = "" if ratio is None else f"{ratio:.2f}x"
            rows.append([case, ours, f"{taken:.2f}", peer, f"{seconds.median(case, peer) or 0:.2f}", shown])
    return markdown(["", "ours", "s", "best peer", "s", "ratio"], rows)


def settings_table(figures: Figures) -> str:
    """The settings that each peer ran best with."""
    rows = []
    for engine in figures.engines:
        for case in figures.cases:
            chosen = [f.settings for f in figures.figures if (f.case, f.engine) == (case, engine) and f.settings]
            if chosen:
                rows.append([engine, case, ", ".join(_words(chosen[-1]))])
    return markdown(["", "case", "settings"], rows)


def _words(settings: Mapping[str, Any]) -> list[str]:
    """Each setting with its value; of properties, each of them."""
    found = []
    for key, value in settings.items():
        found += _words(value) if isinstance(value, Mapping) else [f"{key} {value}"]
    return found


def _bits(bits: int | None) -> str:
    return "any precision" if bits is None else f"{bits} bits"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
