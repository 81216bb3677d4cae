"""What a step brought, and what follows from it for a request: its next tokens, and perhaps its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bossa.engine.logprobs import token_logprob
from bossa.engine.program import Floats
from bossa.engine.request import Request
from bossa.engine.sampler import sample
from bossa.engine.stopping import FinishReason

if TYPE_CHECKING:
    from bossa.engine.choices import Chooser


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


def learn(request: Request, branch: Sequence[int], outcome: Outcome, row: int, rows: int) -> None:
    """Take in the logits of the last nodes of a branch of a request's choices, and answer once all is known.

    Args:
        branch: the tokens behind the prompt up to the last of these nodes; none for the prompt's own logits.
        row: the first of their ``rows`` rows.
    """
    assert request.chooser is not None
    assert outcome.logits is not None
    for place in range(rows):
        request.chooser.learn(tuple(branch[: len(branch) - rows + 1 + place]), outcome.logits[row + place])
    if request.chooser.branch is None:
        _answer(request, request.chooser)


def _answer(request: Request, chooser: Chooser) -> None:
    """Give a request the choice that it comes to, and the end behind it."""
    from bossa.sampling.draw import uniform

    assert request.stopper is not None
    prompt = list(request.prompt_token_ids)
    answer = chooser.answer(uniform(request.params.seed, int(request.id), len(prompt), int(request.sample)))
    tokens: list[int] = []
    reason: FinishReason | None = None
    for token in answer:
        tokens.append(token)
        reason = request.stopper.add(token)
        if reason is not None:
            break
    if reason is None:
        tokens += chooser.end
        reason = request.stopper.end()
    elif len(tokens) == len(answer):
        reason = "stop"  # it is whole
    request.logprobs = chooser.reported(tuple(tokens))
    request.tokens = prompt + tokens
    request.finish_reason = reason  # the last, since whoever waits for the request looks at it


def replay(request: Request) -> None:
    """Bring a request with a new stopper to where its tokens are."""
    assert request.stopper is not None
    if request.chooser is not None:
        if request.finish_reason is not None:
            _answer(request, request.chooser)
        else:
            request.tokens = list(request.prompt_token_ids)
        return
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
