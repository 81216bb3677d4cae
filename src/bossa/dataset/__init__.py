"""Prompts in, predictions out."""

from bossa.dataset.predictions import JsonlWriter, TextWriter, completion_fields, error_fields, write_text
from bossa.dataset.prompts import BadRecord, Record, read_records
from bossa.dataset.truncation import Truncation, fit_prompt

__all__ = [
    "BadRecord",
    "JsonlWriter",
    "Record",
    "TextWriter",
    "Truncation",
    "completion_fields",
    "error_fields",
    "fit_prompt",
    "read_records",
    "write_text",
]
