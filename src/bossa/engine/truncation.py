"""What to do with prompts that are longer than a program allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bossa.checks.arguments import choice
from bossa.errors import RequestError

Truncation = Literal["left", "right"]


def fit_prompt(
    ids: Sequence[int], max_seq_length: int, max_new_tokens: int, truncation: Truncation | None = None
) -> list[int]:
    """The prompt's tokens, as many as may run.

    Args:
        ids: the prompt.
        max_seq_length: the most tokens of prompt and completion together.
        max_new_tokens: the tokens that truncation makes room for; the prompt keeps at least one.
        truncation: ``left`` drops tokens from the beginning, ``right`` from the end, None drops none.

    Raises:
        RequestError: without truncation the prompt leaves no room for a single new token, or ``truncation`` is
            none of these.
    """
    if truncation is not None:
        choice("truncation", truncation, ("left", "right"), expected="left or right")
    if truncation is None:
        if len(ids) >= max_seq_length:
            raise RequestError(
                f"the prompt has {len(ids)} tokens, and at most {max_seq_length - 1} fit: shorten it, ask for "
                "truncation, or compile with a greater max_seq_length"
            )
        return list(ids)
    room = max(1, max_seq_length - max_new_tokens)
    if len(ids) <= room:
        return list(ids)
    return list(ids[-room:] if truncation == "left" else ids[:room])
