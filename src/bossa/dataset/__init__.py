"""Prompts in, predictions out."""

from bossa.dataset.arrival import Source, source
from bossa.dataset.fields import answer_fields, completion_fields, error_fields
from bossa.dataset.predictions import SEPARATOR, JsonlWriter, TextWriter, write_text
from bossa.dataset.prompts import BadRecord, Record, read_records

__all__ = [
    "SEPARATOR",
    "BadRecord",
    "JsonlWriter",
    "Record",
    "Source",
    "TextWriter",
    "answer_fields",
    "completion_fields",
    "error_fields",
    "read_records",
    "source",
    "write_text",
]
