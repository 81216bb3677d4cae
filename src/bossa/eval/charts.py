"""Charts as inline SVG: a heat map, bars with a diagonal, and histograms. Colours are the page's."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bossa.errors import shortened, shown
from bossa.eval.measures import Bin, Classification

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 44
LONGEST_LABEL = 14
MOST_CHOICES = 20
"""Of which a heat map can still be read."""


def element(tag: str, content: str = "", /, **attributes: object) -> str:
    """An element around markup; names of attributes have hyphens for underscores, and ``kind`` is the class."""
    given = {"class" if name == "kind" else name.replace("_", "-"): value for name, value in attributes.items()}
    inside = "".join(f' {name}="{escape(str(value))}"' for name, value in given.items())
    return f"<{tag}{inside}>{content}</{tag}>"


def text(value: object) -> str:
    """Text as markup, in which nothing is markup and nothing is invisible."""
    return escape(shown(value, lines=True))


def heat_map(found: Classification) -> str:
    """References down, answers across; each row is shaded by its shares."""
    size = len(found.choices)
    left, top = 110, 34
    cell = min(90.0, (WIDTH - left - RIGHT) / size)
    parts = [_label(left + cell * size / 2, 12, "answer", "middle"), _label(4, top - 6, "reference", "start")]
    for row, counts in enumerate(found.confusion):
        y, name = top + cell * row, _name(found.choices[row])
        parts.append(_label(left - 8, y + cell / 2 + 4, name, "end"))
        parts.append(_label(left + cell * (row + 0.5), top - 6, name, "middle"))
        for column, count in enumerate(counts):
            x, share = left + cell * column, count / max(1, sum(counts))
            kind = "right" if row == column else "wrong"
            shape = _rectangle(x + 1, y + 1, cell - 2, cell - 2, kind, fill_opacity=f"{0.06 + 0.84 * share:.3f}")
            note = text(f"{found.choices[row]} answered as {found.choices[column]}: {count:,}")
            parts.append(element("g", element("title", note) + shape))
            strong = "count strong" if share > 0.5 else "count"
            parts.append(_label(x + cell / 2, y + cell / 2 + 5, f"{count:,}", "middle", strong))
    return _svg("Confusion matrix", parts, top + cell * size + 8)


def reliability(bins: Sequence[Bin]) -> str:
    """The share of right answers by their probability: on the diagonal the model knows how sure it may be."""
    parts = _axes("probability of the answer", "share that is right", (0.0, 1.0), 1.0)
    wide = (WIDTH - LEFT - RIGHT) / len(bins)
    most = max(each.count for each in bins)
    for place, each in enumerate(bins):
        if each.accuracy is None or each.confidence is None:
            continue
        high = (HEIGHT - TOP - BOTTOM) * each.accuracy
        shade = 0.35 + 0.65 * each.count / most
        bar = _rectangle(
            LEFT + wide * place + 1, HEIGHT - BOTTOM - high, wide - 2, max(high, 1), "bar", fill_opacity=f"{shade:.3f}"
        )
        note = f"{each.count:,} answers, mean probability {each.confidence:.3f}, {100 * each.accuracy:.1f}% right"
        parts.append(element("g", element("title", text(note)) + bar))
    parts.append(
        element("line", x1=LEFT, y1=HEIGHT - BOTTOM, x2=WIDTH - RIGHT, y2=TOP, kind="diagonal", stroke_dasharray="4 4")
    )
    return _svg("Reliability", parts, HEIGHT)


def histogram(values: Sequence[float], title: str, axis: str, split: float | None = None, bins: int = 24) -> str:
    """How many values are where; those below ``split`` in the colour of what is wrong."""
    low, high = min(values), max(values)
    if split is not None:
        low, high = min(low, split), max(high, split)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    width = (high - low) / bins
    first = low
    if split is not None:  # a border of bins lies on it
        below = -(-(split - low) // width)
        first = split - below * width
        bins += 1
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int((value - first) / width + 1e-9)))] += 1
    last = first + width * bins
    parts = _axes(axis, "records", (first, last), max(counts))
    wide = (WIDTH - LEFT - RIGHT) / bins
    for place, count in enumerate(counts):
        if not count:
            continue
        start = first + width * place
        kind = "wrong" if split is not None and start + width / 2 < split else "bar"
        tall = (HEIGHT - TOP - BOTTOM) * count / max(counts)
        bar = _rectangle(LEFT + wide * place + 0.5, HEIGHT - BOTTOM - tall, wide - 1, tall, kind)
        parts.append(element("g", element("title", f"{start:.2f} to {start + width:.2f}: {count:,}") + bar))
    return _svg(title, parts, HEIGHT)


def _svg(title: str, parts: Sequence[str], height: float) -> str:
    return element(
        "svg", "".join(parts), viewBox=f"0 0 {WIDTH} {height:.0f}", role="img", aria_label=title, width=WIDTH
    )


def _axes(across: str, up: str, limits: tuple[float, float], most: float) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        element("line", x1=LEFT, y1=bottom, x2=right, y2=bottom, kind="axis"),
        element("line", x1=LEFT, y1=TOP, x2=LEFT, y2=bottom, kind="axis"),
        _label((LEFT + right) / 2, HEIGHT - 8, across, "middle"),
        element(
            "text", text(up), transform=f"translate(12 {(TOP + bottom) / 2:.0f}) rotate(-90)", text_anchor="middle"
        ),
        _label(LEFT - 6, TOP + 8, f"{most:,.4g}", "end"),
        _label(LEFT - 6, bottom, "0", "end"),
    ]
    for part in (0, 0.25, 0.5, 0.75, 1):
        value = limits[0] + part * (limits[1] - limits[0])
        anchor = "end" if part == 1 else "middle"
        parts.append(_label(LEFT + part * (right - LEFT), bottom + 16, f"{value:.3g}", anchor))
    return parts


def _rectangle(x: float, y: float, width: float, height: float, kind: str, **more: object) -> str:
    size = {"width": f"{width:.1f}", "height": f"{height:.1f}"}
    return element("rect", kind=kind, x=f"{x:.1f}", y=f"{y:.1f}", **size, **more)


def _label(x: float, y: float, value: str, anchor: str, kind: str = "label") -> str:
    return element("text", text(value), x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, kind=kind)


def _name(choice: str) -> str:
    return shortened(choice.strip(), LONGEST_LABEL)
