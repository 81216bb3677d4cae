"""A record with the completion that is wanted: what is asked, and what the answer should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bossa.checks.arguments import described
from bossa.dataset import BadRecord, Record


@dataclass(frozen=True)
class FieldNames:
    """The fields of a record that are read, besides its prompt."""

    completion: str = "completion"
    id: str = "id"


@dataclass(frozen=True)
class Example:
    """One record to evaluate.

    Attributes:
        index: its place among all records, good and bad, from 0.
        file: the file it came from.
        line: the line in the file on which it begins, from 1.
        id: its own, or its index where it has none.
        prompt: a text, or a conversation that the chat template makes one of.
        reference: the completion that is wanted.
        choice: the place of the reference among the choices; None where there are none.
        tools: of a conversation.
    """

    index: int
    file: str
    line: int
    id: Any
    prompt: str | list[dict[str, Any]]
    reference: str
    choice: int | None = None
    tools: list[dict[str, Any]] | None = None


def example(record: Record, choices: Sequence[str] = (), names: FieldNames | None = None) -> Example | BadRecord:
    """What a record asks and wants. A conversation that ends with an assistant's message may want that one.

    A reference is that of the choices which it is but for white space around it.
    """
    names = names or FieldNames()
    prompt: str | list[dict[str, Any]] = record.prompt if record.messages is None else record.messages
    reference: Any = record.fields.get(names.completion)
    if reference is None and isinstance(prompt, list) and len(prompt) > 1 and prompt[-1]["role"] == "assistant":
        reference = prompt[-1].get("content")
        prompt = prompt[:-1]
    reason = _wrong(reference, names.completion, names.completion in record.fields)
    place = None
    if reason is None and choices:
        stripped = [choice.strip() for choice in choices]
        place = next((place for place, choice in enumerate(stripped) if choice == reference.strip()), None)
        if place is None:
            listed = ", ".join(stripped[:5]) + (", …" if len(stripped) > 5 else "")
            wrong = described(reference.strip())
            reason = f'the "{names.completion}" is {wrong}, which is none of the choices: {listed}'
    if reason is not None:
        return BadRecord(record.index, record.file, record.line, reason, record.fields)
    own = record.fields.get(names.id)
    where = (record.index, record.file, record.line)
    return Example(*where, record.index if own is None else own, prompt, reference, place, record.tools)


def _wrong(reference: object, name: str, is_there: bool) -> str | None:
    """Why this is no completion to compare with."""
    if reference is None:
        return f'the "{name}" is null' if is_there else f'the record has no "{name}" to compare with'
    if not isinstance(reference, str):
        return f'the "{name}" is not a text but {described(reference)}'
    return None if reference.strip() else f'the "{name}" is empty'
