"""What a step of a program costs, what this machine allows, and how far a program's speed is from it."""

from bossa.bench.limits import Limits, measure_limits
from bossa.bench.model import Cost, Span, StepModel
from bossa.bench.rates import Rate, decode_rates, prefill_rates

__all__ = [
    "Cost",
    "Limits",
    "Rate",
    "Span",
    "StepModel",
    "decode_rates",
    "measure_limits",
    "prefill_rates",
]
