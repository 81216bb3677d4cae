"""The report: one page that holds all that it needs, for a bright room and a dark one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bossa.dataset import BadRecord
from bossa.errors import shortened
from bossa.eval import table
from bossa.eval.charts import MOST_CHOICES, element, heat_map, histogram, reliability, text
from bossa.eval.fields import Judged
from bossa.eval.measures import Summary

MOST_ROWS = 20
"""Of the table of mistakes, and of that of errors."""
LONGEST_CELL = 600

STYLE = """
:root{color-scheme:light dark;--page:#fcfcfb;--ink:#1d1f23;--dim:#63676f;--line:#d9dade;--right:#2a6fbb;--wrong:#c2552d}
@media(prefers-color-scheme:dark){:root{--page:#16181c;--ink:#e7e8ea;--dim:#9da2ab;--line:#373b42;--right:#6fa8e6;
--wrong:#e5875f}}
body{background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif;margin:0 auto;padding:24px;
max-width:960px}
h1{font-size:22px;margin:0 0 4px}h2{font-size:16px;margin:28px 0 8px}p,figcaption{color:var(--dim);margin:4px 0}
.figures{display:flex;flex-wrap:wrap;gap:12px;margin:20px 0}.figures div{border:1px solid var(--line);border-radius:8px;
padding:10px 14px}.figures b{display:block;font-size:20px;font-variant-numeric:tabular-nums}
.figures span{color:var(--dim)}
.charts{display:flex;flex-wrap:wrap;gap:24px}figure{margin:0;max-width:420px}svg{max-width:100%;height:auto}
svg text{fill:var(--dim);font-size:12px}svg .count{fill:var(--ink);font-size:14px}svg .strong{fill:var(--page)}
.bar,.right{fill:var(--right)}.wrong{fill:var(--wrong)}.axis{stroke:var(--line)}.diagonal{stroke:var(--dim)}
table{border-collapse:collapse;width:100%;font-size:14px}th,td{text-align:left;vertical-align:top;padding:5px 8px;
border-bottom:1px solid var(--line)}th{color:var(--dim);font-weight:normal}td.number{font-variant-numeric:tabular-nums}
td.text{white-space:pre-wrap;overflow-wrap:anywhere}.scroll{overflow-x:auto}
"""


def page(
    title: str,
    about: Mapping[str, str],
    summary: Summary,
    answers: Sequence[Judged],
    errors: Sequence[BadRecord],
) -> str:
    """The whole page.

    Args:
        about: what was evaluated on what, by name.
    """
    said = " · ".join(f"{text(name)} {text(value)}" for name, value in about.items())
    counted = f"{summary.records:,} records" + (f", {summary.errors:,} errors" if summary.errors else "")
    body = [
        element("h1", text(title)),
        element("p", f"{said} · {counted}"),
        _figures(summary),
        element("div", "".join(_charts(summary, answers)), kind="charts"),
    ]
    if summary.classification is not None:
        head, *rows = table.confusion(summary.classification)
        body += [element("h2", "Choices"), _table(head, rows)]
    body += _mistakes(answers)
    if errors:
        rows = [(error.file, str(error.line), error.reason) for error in errors[:MOST_ROWS]]
        body += [element("h2", f"Errors{_of(len(rows), len(errors))}"), _table(("file", "line", "reason"), rows)]
    head_parts = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        element("title", text(title)),
        element("style", STYLE),
    ]
    document = element("head", "".join(head_parts)) + element("body", "\n".join(body))
    return f"<!DOCTYPE html>\n{element('html', document, lang='en')}\n"


def _figures(summary: Summary) -> str:
    tiles = (
        element("div", f"{element('span', text(name))}{element('b', text(value))}{element('span', text(note))}")
        for name, value, note in table.measures(summary)
    )
    return element("div", "".join(tiles), kind="figures")


def _charts(summary: Summary, answers: Sequence[Judged]) -> list[str]:
    charts = []
    found = summary.classification
    if found is not None and len(found.choices) <= MOST_CHOICES:
        charts.append(_figure(heat_map(found), "How each reference was answered; rows are shaded by their shares."))
    if found is not None:
        charts.append(
            _figure(
                reliability(found.bins),
                "Answers by their probability: on the diagonal it is the share that is right. Darker bars have more.",
            )
        )
        margins = [each.margin for each in answers if each.margin is not None and abs(each.margin) < 1e300]
        if margins:
            charts.append(
                _figure(
                    histogram(margins, "Margins", "log probability above the next choice", 0.0),
                    "How far the reference is above the likeliest other choice; below 0 the answer is wrong.",
                )
            )
    likely = [each.outcome.log_likelihood / each.outcome.tokens for each in answers]
    likely = [value for value in likely if value > -1e300]
    if likely:
        charts.append(
            _figure(
                histogram(likely, "Likelihood", "log probability a token"),
                "How likely the model finds the references: the mean log probability of their tokens.",
            )
        )
    return charts


def _mistakes(answers: Sequence[Judged]) -> list[str]:
    """The wrong answers that the model is surest of; without choices, the first wrong ones."""
    wrong = sorted((each for each in answers if each.correct is False), key=lambda each: -each.confidence)
    if not wrong:
        return []
    sure = bool(wrong[0].probabilities)
    rows = [
        (
            str(each.outcome.example.id),
            _prompt(each),
            each.outcome.example.reference,
            each.answer or "",
            *((f"{each.confidence:.3f}",) if sure else ()),
        )
        for each in wrong[:MOST_ROWS]
    ]
    name = "Most confident mistakes" if sure else "Mistakes"
    head = ("id", "prompt", "reference", "answer", *(("probability",) if sure else ()))
    return [element("h2", f"{name}{_of(len(rows), len(wrong))}"), _table(head, rows)]


def _prompt(each: Judged) -> str:
    prompt = each.outcome.example.prompt
    return prompt if isinstance(prompt, str) else "\n".join(f"{turn['role']}: {turn.get('content')}" for turn in prompt)


def _of(shown: int, total: int) -> str:
    return f" ({shown:,} of {total:,})" if shown < total else f" ({total:,})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = element("tr", "".join(element("th", text(name)) for name in head))
    lines = (
        element("tr", "".join(element("td", text(shortened(cell, LONGEST_CELL)), kind="text") for cell in row))
        for row in rows
    )
    whole = element("table", element("thead", titles) + element("tbody", "".join(lines)))
    return element("div", whole, kind="scroll")


def _figure(chart: str, caption: str) -> str:
    return element("figure", chart + element("figcaption", text(caption)))
