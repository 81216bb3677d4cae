"""The engine: requests in, completions out, on a loaded program."""

from bossa.engine.engine import Engine
from bossa.engine.program import Detokenizer, ModelRunner, Tokenizer
from bossa.engine.request import Completion, Request
from bossa.engine.stopping import FinishReason
from bossa.sampling.parameters import SamplingParams

__all__ = [
    "Completion",
    "Detokenizer",
    "Engine",
    "FinishReason",
    "ModelRunner",
    "Request",
    "SamplingParams",
    "Tokenizer",
]
