"""The summary as rows of text, for people."""

from __future__ import annotations

from bossa.eval.measures import Accuracy, Classification, Summary

Row = tuple[str, ...]


def measures(summary: Summary) -> list[Row]:
    """Name, value, and what it is made of."""
    rows: list[Row] = []
    if summary.exact_match is not None:
        rows.append(("exact match", *_accuracy(summary.exact_match)))
    for name, found in (("accuracy", summary.plain), ("calibrated accuracy", summary.calibrated)):
        if found is not None:
            rows.append((name, *_accuracy(found.accuracy)))
    if summary.classification is not None:
        found = summary.classification
        rows.append(("macro F1", figure(found.macro_f1), ""))
        rows.append(("calibration error", figure(found.calibration_error), "between probability and accuracy"))
    perplexity = summary.perplexity
    rows.append(
        (
            "perplexity",
            f"{perplexity.value:,.4g}",
            f"of {perplexity.tokens:,} tokens; {perplexity.bits_per_token:.3f} bits a token,"
            f" {perplexity.bits_per_byte:.3f} bits a byte",
        )
    )
    return rows


def confusion(found: Classification) -> list[Row]:
    """How often each reference was answered in which way, and the scores of each choice."""
    names = [choice.strip() for choice in found.choices]
    rows: list[Row] = [("reference", *(f"as {name}" for name in names), "precision", "recall", "F1")]
    for name, counts, score in zip(names, found.confusion, found.classes, strict=True):
        rates = (score.precision, score.recall, score.f1)
        rows.append((name, *(f"{count:,}" for count in counts), *(figure(rate) for rate in rates)))
    return rows


def figure(value: float | None) -> str:
    """A share; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def percent(accuracy: Accuracy) -> str:
    """A share and its standard error, as 91.2% ± 0.9."""
    return f"{100 * accuracy.value:.1f}% ± {100 * accuracy.standard_error:.1f}"


def _accuracy(accuracy: Accuracy) -> tuple[str, str]:
    return percent(accuracy), f"{accuracy.correct:,} of {accuracy.total:,}"
