"""The results of ``bossa bench`` as text, as JSON, and as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bossa.bench.limits import Limits
from bossa.bench.rates import Rate
from bossa.errors import RequestError
from bossa.host.output import writing

CACHED = 128 << 20
"""Weights up to this many bytes may be held in part by a large last cache."""


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        program: name, precision, parameters and bytes of the program, as JSON has them.
        weights: where the weights came from, in words.
        limits: None where they could not be measured; ``why`` then says why, unless nobody asked.
    """

    program: dict[str, Any]
    weights: str
    threads: int
    limits: Limits | None
    rates: Sequence[Rate]
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "program": self.program,
            "weights": self.weights,
            "threads": self.threads,
            "limits": None if self.limits is None else self.limits.to_json(),
            "cases": [rate.to_json(self.limits) for rate in self.rates],
        }


def heading(report: Report) -> list[str]:
    program = report.program
    return [
        f"{program['name']}, {program['precision']}, {program['parameters'] / 1e6:,.1f}M parameters,"
        f" {program['weight_bytes'] / 1e6:,.1f} MB packed; {report.weights}; {program['target']},"
        f" {report.threads} thread{'s' if report.threads > 1 else ''}"
    ]


def limit_rows(limits: Limits) -> Sequence[tuple[str, ...]]:
    """The machine's limits: what, how much, and how it was reached."""
    rate = limits.operations_per_s
    return [
        (f"read, {limits.threads} threads", f"{limits.read_bytes_per_s / 1e9:.1f} GB/s", limits.pattern),
        ("read, 1 thread", f"{limits.read_bytes_per_s_one / 1e9:.1f} GB/s", limits.pattern_one),
        ("multiply-add, fp32", f"{rate['fp32'] / 1e9:.0f} GFLOP/s", "for fp32 weights, and attention"),
        ("multiply-add, int16", f"{rate['int16'] / 1e9:.0f} GOP/s", "for int8 weights"),
        ("multiply-add, int8", f"{rate['int8'] / 1e9:.0f} GOP/s", "for int4 weights"),
        ("barrier", f"{limits.barrier_s * 1e6:.2f} µs", "all threads awake"),
    ][0 if limits.threads > 1 else 1 :]


HEADER = ("", "tokens/s", "spread", "limit", "share", "bound by", "MB read", "of which KV", "G operations", "barriers")


def rate_row(rate: Rate, limits: Limits | None) -> tuple[str, ...]:
    """One case: its rate, the range of its measurements, its limit, and what a step costs."""
    cost = rate.cost
    limit, share, bound = "", "", ""
    if limits is not None:
        allowed, bound = rate.limit(limits)
        limit, share = f"{allowed:,.1f}", f"{rate.median / allowed:.0%}"
    return (
        rate.name,
        f"{rate.median:,.1f}",
        f"{min(rate.rates):,.1f} to {max(rate.rates):,.1f}",
        limit,
        share,
        bound,
        f"{cost.bytes / 1e6:,.1f}",
        f"{cost.kv_bytes / 1e6:,.1f}",
        f"{sum(cost.operations.values()) / 1e9:.2f}",
        str(cost.barriers),
    )


def notes(report: Report) -> list[str]:
    """What must be known to read the figures."""
    lines = []
    if report.limits is None:
        if report.why:
            lines.append(f"no limits: {report.why}")
    elif report.program["weight_bytes"] < CACHED:
        lines.append("weights this small partly stay in a large cache: shares above 100% are possible then")
    return lines


def draw(report: Report, path: Path) -> None:
    """A chart of the rates beside their limits, as PNG (or what else the file's ending says).

    Raises:
        RequestError: matplotlib is not installed, or does not know that ending.
    """
    pyplot = plotting()
    figure, axes = pyplot.subplots(figsize=(max(6.0, 1.1 * len(report.rates)), 4.5))
    places = range(len(report.rates))
    axes.bar(places, [rate.median for rate in report.rates], width=0.6, color="#4878a8", label="measured")
    if report.limits is not None:
        limits = [rate.limit(report.limits)[0] for rate in report.rates]
        axes.hlines(
            limits, [x - 0.4 for x in places], [x + 0.4 for x in places], color="#b04030", label="limit of the machine"
        )
        for x, rate, limit in zip(places, report.rates, limits, strict=True):
            axes.annotate(f"{rate.median / limit:.0%}", (x, rate.median), ha="center", va="bottom")
    axes.set_xticks(list(places), [rate.name for rate in report.rates], rotation=30, ha="right")
    axes.set_yscale("log")
    axes.set_ylabel("tokens/s")
    axes.set_title(f"{report.program['name']}, {report.program['precision']}, {report.threads} threads")
    axes.legend()
    save(figure, path)


def plotting() -> Any:
    """matplotlib's pyplot, drawing to files alone.

    Raises:
        RequestError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise RequestError("a chart needs matplotlib, which is not installed: pip install 'bossa[bench]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: Path) -> None:
    """Write a figure to a file."""
    try:
        with writing(path) as file:
            figure.savefig(file, format=path.suffix[1:] or "png", dpi=150, bbox_inches="tight")
    except ValueError as error:
        raise RequestError(f"{path}: cannot be drawn ({error}): name it .png, .svg or .pdf") from None
