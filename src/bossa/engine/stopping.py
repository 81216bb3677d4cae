"""When a completion ends, and what of its text is certain: end tokens, stop strings, length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bossa.engine.program import Detokenizer, Tokenizer
from bossa.sampling.parameters import SamplingParams

FinishReason = Literal["stop", "length"]


def find_stop(text: str, stop: Sequence[str], start: int = 0) -> int | None:
    """Where to cut ``text``: before the stop string that is complete first, of those that end after ``start``.

    Of several that end at one place the longest counts. So the cut depends on the text alone, and not on the pieces
    in which it came.
    """
    ends: list[tuple[int, int]] = []
    for wanted in stop:
        at = text.find(wanted, max(0, start - len(wanted) + 1))
        if at >= 0:
            ends.append((at + len(wanted), at))
    return min(ends)[1] if ends else None


def held_back(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end of ``text`` may be the beginning of a stop string."""
    longest = 0
    for wanted in stop:
        for length in range(min(len(wanted) - 1, len(text)), longest, -1):
            if text.endswith(wanted[:length]):
                longest = length
                break
    return longest


def continuation(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """The text that ``ids`` add to the prompt's: the rest of a character that the prompt began is theirs."""
    start = tokenizer.decode(prompt).rstrip("\ufffd")
    return tokenizer.decode([*prompt, *ids])[len(start) :]


class Stopper:
    """Follows one completion, token by token.

    The text is followed as it grows only where somebody reads it: a stop string, or a stream. Elsewhere it is decoded
    once, at the end. What it holds follows from the tokens added alone, so that it can be built again from them.

    Args:
        params: the stop strings and the end tokens.
        prompt: the tokens that the completion follows.
        max_new_tokens: how many may be added.
        tokenizer: None where there is no text.
        detokenizer: a new one for this prompt, where the text is to be followed.

    Attributes:
        text: the text that is certain so far; all of it once ``add`` has given a reason.
        end_tokens: those that end the completion.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        max_new_tokens: int,
        tokenizer: Tokenizer | None,
        detokenizer: Detokenizer | None,
    ) -> None:
        self.text = ""
        self._prompt = prompt
        self._stop = params.stop
        self.end_tokens = frozenset() if params.ignore_eos else frozenset(params.eos_token_ids)
        self._left = max_new_tokens
        self._tokenizer = tokenizer
        self._detokenizer = detokenizer
        self._ids: list[int] = []  # of the text, so without an end token
        self._decoded = ""

    @property
    def follows(self) -> bool:
        """Whether somebody reads the text as it grows."""
        return self._detokenizer is not None

    def add(self, token_id: int) -> FinishReason | None:
        """Take the next token, and say whether the completion ends with it, and why."""
        self._left -= 1
        ended = token_id in self.end_tokens
        if not ended:
            self._ids.append(token_id)
            if self._detokenizer is not None and self._extend(self._detokenizer.add(token_id)):
                return "stop"
        if ended or not self._left:
            return "stop" if self._finish() or ended else "length"
        return None

    def end(self) -> FinishReason:
        """Take note of an end behind the tokens that there are, whether or not there is a token for it."""
        self._finish()
        return "stop"

    def _extend(self, delta: str) -> bool:
        """Take in more text; True when a stop string is complete."""
        seen = len(self._decoded)
        self._decoded += delta
        cut = find_stop(self._decoded, self._stop, seen) if delta else None
        if cut is not None:
            self.text = self._decoded[:cut]
            return True
        self.text = self._decoded[: len(self._decoded) - held_back(self._decoded, self._stop)]
        return False

    def _finish(self) -> bool:
        """Complete the text, with what was held back; True when that completes a stop string."""
        if self._detokenizer is not None:
            rest = self._detokenizer.finish()
        elif self._tokenizer is not None:
            rest = continuation(self._tokenizer, self._prompt, self._ids)
        else:
            return False
        if self._extend(rest):
            return True
        self.text = self._decoded
        return False
