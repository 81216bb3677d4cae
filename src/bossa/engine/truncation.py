"""What to do with prompts that are longer than a program allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from bossa.checks.arguments import choice
from bossa.errors import RequestError

Truncation = Literal["left", "right"]


def fit_prompt(
    ids: Sequence[int],
    max_seq_length: int,
    max_new_tokens: int,
    truncation: Truncation | None = None,
    framed: bool = False,
) -> list[int]:
    """The prompt's tokens, as many as may run.

    Args:
        ids: the prompt.
        max_seq_length: the most tokens of prompt and completion together.
        max_new_tokens: the tokens that truncation makes room for; the prompt keeps at least one.
        truncation: ``left`` drops tokens from the beginning, ``right`` from the end, None drops none.
        framed: it is the text of a conversation, whose frame no cut may go through.

    Raises:
        RequestError: the prompt may not be cut; without truncation it leaves no room for a single new token; or
            ``truncation`` is none of these.
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
    room = room_for(max_seq_length, max_new_tokens)
    if len(ids) <= room:
        return list(ids)
    if framed:
        raise RequestError(
            f"the prompt is a conversation's text of {len(ids)} tokens, {room} fit, and a cut would go through its"
            " template: give the messages themselves, so that the user's text is cut"
        )
    return list(ids[-room:] if truncation == "left" else ids[:room])


def room_for(max_seq_length: int, max_new_tokens: int) -> int:
    """The most tokens of a prompt that truncation leaves."""
    return max(1, max_seq_length - max_new_tokens)


def fit_text(text: str, encode: Callable[[str], list[int]], room: int, truncation: Truncation) -> list[int] | None:
    """What ``encode`` makes of as much of a text as fits, which must be less than all of it.

    Args:
        text: what may be cut, between two letters.
        encode: the ids of all that is to be sent, with a part of the text in its place.
        room: the most ids.
        truncation: the side on which the text is cut.

    Returns:
        The ids; None where even those of no text are too many.
    """
    fitted = encode("")
    if len(fitted) > room:
        return None
    fits, exceeds = 0, len(text)
    while exceeds - fits > 1:
        letters = (fits + exceeds) // 2
        ids = encode(text[len(text) - letters :] if truncation == "left" else text[:letters])
        if len(ids) <= room:
            fitted, fits = ids, letters
        else:
            exceeds = letters
    return fitted
