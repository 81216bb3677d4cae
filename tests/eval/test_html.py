"""The report: one whole page that needs nothing from elsewhere, whatever the records hold."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest

from bossa.dataset import BadRecord
from bossa.eval import Outcome, summarize
from bossa.eval.charts import histogram
from bossa.eval.fields import judged
from bossa.eval.html import page
from support.outcomes import CHOICES, FOUR, outcome

EMPTY = {"meta", "br", "img", "link", "input"}
HOSTILE = '</td><script>alert("x")</script><img src=x onerror=alert(1)> &amp; \x1b[31m\u202e http'


class Balance(HTMLParser):
    """Reads a page, and knows which elements are open, which there were, and what they said."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> ends nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def read(outcomes: list[Outcome], errors: list[BadRecord] | None = None, **options) -> tuple[str, Balance]:
    summary = summarize(outcomes, len(errors or []), **options)
    text = page("Evaluation", {"data": "a <b>.jsonl"}, summary, judged(outcomes, summary), errors or [])
    found = Balance()
    found.feed(text)
    found.close()
    assert found.open == []
    return text, found


@pytest.mark.parametrize("options", [{}, {"choices": CHOICES}, {"choices": CHOICES, "calibrate": True}])
def test_the_page_is_whole_and_needs_no_network(options):
    text, found = read(FOUR, [BadRecord(4, "reviews.jsonl", 9, "it is empty")], **options)
    assert {name for name, _ in found.attributes}.isdisjoint({"src", "href", "srcset", "action", "onclick"})
    assert {"script", "link", "iframe", "img"}.isdisjoint(found.tags)
    assert not re.search(r"https?:|//|url\(|@import", text)
    assert "prefers-color-scheme:dark" in text
    assert found.tags.count("svg") == (3 + 1 if options else 1)
    assert "it is empty" in found.said


def test_text_of_records_is_text_and_nothing_else():
    text, found = read([outcome(0, (-2.0, -1.0), prompt=HOSTILE), *FOUR], choices=CHOICES)
    assert {"script", "img"}.isdisjoint(found.tags)
    assert "<script" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert any('</td><script>alert("x")</script>' in said for said in found.said)


def test_mistakes_come_with_the_surest_first():
    outcomes = [
        outcome(0, (-2.0, -1.0), index=1),
        outcome(0, (-9.0, -1.0), index=2),
        outcome(0, (-1.0, -9.0), index=3),
        outcome(1, (-1.0, -4.0), index=4),
    ]
    _, found = read(outcomes, choices=CHOICES)
    table = found.said[found.said.index("Most confident mistakes (3)") :]
    assert [said for said in table if re.fullmatch(r"r\d", said)] == ["r2", "r4", "r1"]


def test_many_choices_and_equal_values_are_drawn_too():
    outcomes = [outcome(0, (-1.0, -math.inf)), outcome(0, (-1.0, -math.inf))]
    _, found = read(outcomes, choices=CHOICES)
    assert "svg" in found.tags
    assert "nan" not in " ".join(value or "" for _, value in found.attributes).lower()


def test_all_that_is_drawn_lies_in_its_chart():
    text, _ = read([*FOUR, outcome(1, (-30.0, -1.0))], choices=CHOICES)
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 4
    for chart in charts:
        box = re.search(r'viewBox="0 0 (\d+) (\d+)"', chart)
        assert box is not None
        shapes = re.findall(r'x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"', chart)
        assert shapes
        for x, y, width, height in (map(float, shape) for shape in shapes):
            assert min(x, y, width, height) >= 0
            assert x + width <= float(box[1])
            assert y + height <= float(box[2])


def test_bars_of_a_histogram_count_every_value_and_part_at_the_border():
    values = [-2.0, -0.01, 0.0, 0.01, 3.0, 3.0]
    chart = histogram(values, "Margins", "margin", 0.0)
    counts = [int(count) for count in re.findall(r"<title>[^<]*: (\d+)</title>", chart)]
    assert sum(counts) == len(values)
    wrong = re.findall(r": (\d+)</title><rect class=\"wrong\"", chart)
    assert sum(map(int, wrong)) == 2
