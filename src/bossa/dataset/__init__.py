"""Prompts in, predictions out."""

from bossa.dataset.predictions import (
    SEPARATOR,
    JsonlWriter,
    TextWriter,
    answer_fields,
    completion_fields,
    error_fields,
    write_text,
)
from bossa.dataset.prompts import BadRecord, Record, read_records
from bossa.dataset.truncation import Truncation, fit_prompt

__all__ = [
    "SEPARATOR",
    "BadRecord",
    "JsonlWriter",
    "Record",
    "TextWriter",
    "Truncation",
    "answer_fields",
    "completion_fields",
    "error_fields",
    "fit_prompt",
    "read_records",
    "write_text",
]
