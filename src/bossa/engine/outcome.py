"""What a step brought, and what follows from it for a request: its next tokens, and perhaps its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bossa.engine.logprobs import token_logprob
from bossa.engine.program import Floats
from bossa.engine.request import Request
from bossa.engine.sampler import sample


@dataclass(frozen=True)
class Outcome:
    """Of the rows that were to have logits: these, or where that is enough their likeliest tokens.

    Attributes:
        logits: [n, V].
        best: [n] token ids.
    """

    logits: Floats | None = None
    best: Sequence[int] | None = None


def grow(request: Request, drafts: Sequence[int], outcome: Outcome, row: int) -> None:
    """Add the tokens that a request gets from its rows: one, and one more for each draft that holds.

    The first row is of its last token, the others are of the drafts. Each is read only once all tokens before it are
    certain, and then as if the others had not run.
    """
    assert request.stopper is not None
    held = 0
    while True:
        token = _next_token(request, outcome, row + held)
        request.tokens.append(token)
        request.finish_reason = request.stopper.add(token)
        if request.finish_reason is not None or held == len(drafts) or token != drafts[held]:
            break
        held += 1
    if drafts and request.drafter is not None:
        request.drafter.learn(held, held < len(drafts))


def replay(request: Request) -> None:
    """Bring a request with a new stopper to where its tokens are."""
    assert request.stopper is not None
    output = request.output_ids
    del request.logprobs[len(output) :]
    for token in output:
        reason = request.stopper.add(token)
        if reason is not None:  # never None for a moment: whoever waits for the request may look at it
            request.finish_reason = reason


def _next_token(request: Request, outcome: Outcome, row: int) -> int:
    if outcome.best is not None:
        return outcome.best[row]
    assert outcome.logits is not None
    logits = outcome.logits[row]
    token = sample(logits, request)
    if request.params.logprobs is not None:
        request.logprobs.append(token_logprob(logits, token, int(request.params.logprobs)))
    return token
