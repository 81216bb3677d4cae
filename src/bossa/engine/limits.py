"""What a request may ask of this program, and what is refused before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from bossa.checks.arguments import described, whole
from bossa.engine.request import Request
from bossa.errors import RequestError, TokenizerError


@dataclass(frozen=True)
class Limits:
    """What requests are held to.

    Attributes:
        vocab_size: token ids there are.
        max_seq_length: positions that a sequence may have.
        kv_positions: positions that all KV pages together hold.
        has_text: whether there is a tokenizer.
    """

    vocab_size: int
    max_seq_length: int
    kv_positions: int
    has_text: bool

    def check(self, request: Request) -> None:
        """Refuse what can never run.

        Raises:
            RequestError: says what is too long, empty, out of range or missing.
        """
        self.check_prompt(request)
        length = len(request.prompt_token_ids)
        for name, number in (("id", request.id), ("sample", request.sample)):
            whole(f"a request's {name}", number, 0, 2**64 - 1, expected="a whole number from 0 to 2**64 - 1")
        self.check_text(request)
        if (request.params.logprobs or 0) > self.vocab_size:
            raise RequestError(
                f"logprobs is {described(request.params.logprobs)}, and there are {self.vocab_size} tokens: ask for"
                " fewer"
            )
        for name, token in request.params.tokens():
            if not 0 <= token < self.vocab_size:
                raise RequestError(
                    f"{name} names token id {described(token)}, which is not in the vocabulary, ids 0 to"
                    f" {self.vocab_size - 1}"
                )
        room = 0 if request.observer is not None else 1
        most = request.params.max_length
        if most is not None and length >= most and request.observer is None:
            raise RequestError(
                f"the prompt has {length} tokens, and max_length, {most}, leaves no room after it: shorten it, or give"
                " max_new_tokens"
            )
        if length + room > self.max_seq_length:
            raise RequestError(
                f"the prompt has {length} tokens, and at most {self.max_seq_length - room} fit: "
                "shorten it, or compile with a greater max_seq_length"
            )
        positions = self.longest(request) - room
        if request.chooser is not None:
            positions = request.reach
            if positions > self.max_seq_length:
                raise RequestError(
                    f"the prompt has {length} tokens and the longest of its choices {request.chooser.longest}, and at"
                    f" most {self.max_seq_length} fit: shorten them, or compile with a greater max_seq_length"
                )
        if positions > self.kv_positions:
            raise RequestError(
                f"a prompt of {length} tokens and what is asked after it need {positions} positions, and the KV memory "
                f"holds {self.kv_positions}: allow more memory, or ask for fewer tokens"
            )

    def check_prompt(self, request: Request) -> None:
        """Refuse a prompt that is none.

        Raises:
            RequestError: it is empty, or has token ids that are not in the vocabulary.
        """
        if not len(request.prompt_token_ids):
            raise RequestError("the prompt is empty: give at least one token")
        low, high = min(request.prompt_token_ids), max(request.prompt_token_ids)
        if low < 0 or high >= self.vocab_size:
            raise RequestError(
                f"token id {described(low if low < 0 else high)} is not in the vocabulary, ids 0 to"
                f" {self.vocab_size - 1}"
            )

    def check_text(self, request: Request) -> None:
        """Refuse what is said of text where there is none.

        Raises:
            RequestError, TokenizerError: there is no tokenizer.
        """
        if request.params.stop and not self.has_text and request.observer is None:
            raise RequestError("stop strings need a tokenizer, and none is loaded")
        if request.params.constrained and not self.has_text:
            raise TokenizerError(
                "an answer that is constrained is text, and the model has no tokenizer: load it with one"
            )

    def longest(self, request: Request) -> int:
        """Tokens that a request may come to have. The last one that it generates needs no position."""
        length = len(request.prompt_token_ids)
        if request.observer is not None:
            return length
        if request.params.max_length is not None:
            return request.params.longest(self.max_seq_length)
        return min(length + request.params.max_new_tokens, self.max_seq_length)
