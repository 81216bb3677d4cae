"""How well a model does on records with known completions: what it gets right, and how likely it finds them."""

from bossa.eval.evaluate import Evaluation, Settings, evaluate
from bossa.eval.example import Example, FieldNames, example
from bossa.eval.measures import Accuracy, Summary, summarize
from bossa.eval.outcome import Outcome

__all__ = [
    "Accuracy",
    "Evaluation",
    "Example",
    "FieldNames",
    "Outcome",
    "Settings",
    "Summary",
    "evaluate",
    "example",
    "summarize",
]
