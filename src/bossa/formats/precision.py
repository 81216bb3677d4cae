"""The words for how a program's weights, and its keys and values, are stored."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "int8", "int4", "int4-a8"]
KvPrecision = Literal["fp32", "bf16", "int8"]

PRECISIONS: dict[Precision, str] = {
    "fp32": "when the output has to be the model's own",
    "int8": "when quality must not suffer, at a quarter of the memory",
    "int4": "for one sequence at a time, at a sixth of the memory",
    "int4-a8": "for the highest throughput, where the most quality may go",
}
"""What a program may be compiled for, and when to take it; some of its weights are stored otherwise."""
KV_PRECISIONS: tuple[KvPrecision, ...] = ("fp32", "bf16", "int8")
"""How keys and values may be stored."""

GONE: dict[str, str] = {"bf16": "int8, or fp32", "int4-a16": "int4, or int4-a8"}
"""What programs were once compiled for, and what to take instead."""


def why_not(precision: object) -> str | None:
    """What is wrong with a precision, in a line; None where nothing is."""
    if isinstance(precision, str) and precision in PRECISIONS:
        return None
    if isinstance(precision, str) and precision in GONE:
        return f"precision {precision!r} is no longer there: choose {GONE[precision]}"
    return f"precision {precision!r} is not known: choose from {', '.join(PRECISIONS)}"
