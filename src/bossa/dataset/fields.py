"""The fields of an output record: the input's own, and what a run adds to them.

An output may be run again: what an earlier run added is known by its shape and gives way, so that the output of a run,
run again, is that output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bossa.dataset.prompts import BadRecord, Record

FINISHED = ("stop", "length")
ANSWER = ("completion", "token_ids", "finish_reason")
ERROR = ("file", "line", "reason")
OURS = frozenset((*ANSWER, "logprobs", "completions", "error"))
"""What a run adds: no field of an input stands under one of these names in an output."""


def completion_fields(record: Record, *answers: Mapping[str, Any]) -> dict[str, Any]:
    """The output record of a prompt: its own fields, then those of its answer, or several under ``completions``.

    A field of its own that has the name of any that a run adds is kept as ``input_`` and that name.
    """
    ours = answers[0] if len(answers) == 1 else {"completions": list(answers)}
    return {**_renamed(own_fields(record.fields)), **ours}


def answer_fields(
    text: str, token_ids: Sequence[int], finish_reason: str, logprobs: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """The fields of one completion: ``completion``, ``token_ids``, ``finish_reason``, and ``logprobs`` if given."""
    fields = {"completion": text, "token_ids": list(token_ids), "finish_reason": finish_reason}
    return fields if logprobs is None else {**fields, "logprobs": list(logprobs)}


def error_fields(record: Record | BadRecord, reason: str | None = None) -> dict[str, Any]:
    """The output record of a prompt that could not be run: its own fields, then ``error``: file, line and reason.

    An error of an earlier run stays where it says more: it has the same reason, or is all that the record has.
    """
    if reason is None:
        reason = record.reason if isinstance(record, BadRecord) else "it was not run"
    error: Any = {"file": record.file, "line": record.line, "reason": reason}
    own, before = own_fields(record.fields), record.fields.get("error")
    if _is_error(before) and (before["reason"] == reason or not own):  # type: ignore[index]  # it is an object
        error = before
    return {**_renamed(own), "error": error}


def own_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that an earlier run added."""
    ours: set[str] = set()
    if _is_answer(fields):
        ours.update(ANSWER)
        if _are_logprobs(fields.get("logprobs")):
            ours.add("logprobs")
    several = fields.get("completions")
    if isinstance(several, list) and several and all(isinstance(each, dict) and _is_answer(each) for each in several):
        ours.add("completions")
    if _is_error(fields.get("error")):
        ours.add("error")
    return {name: value for name, value in fields.items() if name not in ours}


def _is_answer(fields: Mapping[str, Any]) -> bool:
    tokens = fields.get("token_ids")
    return (
        isinstance(fields.get("completion"), str)
        and isinstance(tokens, list)
        and all(type(token) is int for token in tokens)
        and fields.get("finish_reason") in FINISHED
    )


def _are_logprobs(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(token, dict) and "token_id" in token for token in value)


def _is_error(value: Any) -> bool:
    return isinstance(value, dict) and tuple(value) == ERROR and isinstance(value["reason"], str)


def _renamed(own: Mapping[str, Any]) -> dict[str, Any]:
    """The fields under names that no run uses: ``input_`` goes before one as often as it must."""
    renamed: dict[str, Any] = {}
    for name, value in own.items():
        free = name
        while free in OURS or free in renamed or (free != name and free in own):
            free = f"input_{free}"
        renamed[free] = value
    return renamed
