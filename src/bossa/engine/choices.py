"""Choices: the completion is one of some texts, by the log probability of each as a whole.

They make a tree of tokens, and what each node's logits say of the tokens behind it is read once. The prompt's logits
are the root's; a branch then runs as rows behind the prompt, of tokens that the request does not have, and the next
one in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from bossa.checks.arguments import described
from bossa.engine.logprobs import TokenLogprob, log_probabilities, token_logprob
from bossa.engine.program import Floats, Tokenizer
from bossa.engine.stopping import continuation
from bossa.errors import RequestError
from bossa.sampling.parameters import SamplingParams

Path = tuple[int, ...]

TAIL = 8
"""Tokens at the end of a prompt that the text of a choice is read behind."""


@dataclass(frozen=True)
class ChoiceScores:
    """How likely each choice is after a prompt.

    Attributes:
        index: the prompt's place among those given.
        choices: the texts.
        logprobs: of each, the sum of the log probabilities of its tokens, in float64; of one whose tokens begin
            another's, the end behind it counts too.
        prompt_token_ids: the prompt, as it was run.
    """

    index: int
    choices: tuple[str, ...]
    logprobs: list[float]
    prompt_token_ids: list[int]

    @property
    def best(self) -> int:
        """The place of the likeliest, the first of equals."""
        return self.logprobs.index(max(self.logprobs))

    @property
    def answer(self) -> str:
        """The likeliest text: what ``generate`` answers with these choices."""
        return self.choices[self.best]

    @property
    def probabilities(self) -> list[float]:
        """Of each, given that it is one of them."""
        most = max(self.logprobs)
        weights = [exp(each - most) for each in self.logprobs]
        return [weight / sum(weights) for weight in weights]


def choice_tokens(tokenizer: Tokenizer, choice: str, prompt: Sequence[int] = ()) -> Path:
    """The tokens of a choice as the model writes it after a prompt: tokenized apart, as ``score`` does it.

    Where the text of these would not be the choice (some tokenizers put a space before a text), they are those that it
    has behind a line break.

    Raises:
        RequestError: there are no tokens with this text.
    """
    tail = prompt[-TAIL:]
    before = tokenizer.decode(tail) if tail else ""
    read = before[len(before.rstrip("\ufffd")) :] + choice  # behind a character that the prompt began
    apart = tokenizer.encode(choice, add_special_tokens=False)
    if apart and continuation(tokenizer, tail, apart) == read:
        return tuple(apart)
    broken = tokenizer.encode("\n", add_special_tokens=False)
    behind = tokenizer.encode("\n" + choice, add_special_tokens=False)
    if behind[: len(broken)] == broken:
        behind = behind[len(broken) :]
        if behind and continuation(tokenizer, tail, behind) == read:
            return tuple(behind)
    raise RequestError(
        f"the choice {described(choice)} has no tokens of this tokenizer that read the same: write it in characters"
        " that the model knows"
    )


class Chooser:
    """What is known so far of a request's choices.

    A log probability is never above 0, so what is known of a choice bounds all of it: where only the likeliest is
    wanted, branches that cannot be it are not run.

    Args:
        texts: the choices.
        choices: their tokens.
        params: the end tokens, the temperature and filters, and what is said of tokens.
        weigh_all: whether all log probabilities are wanted.

    Raises:
        RequestError: the choices cannot be told from each other, or hold an end token.
    """

    def __init__(self, texts: Sequence[str], choices: Sequence[Path], params: SamplingParams, weigh_all: bool) -> None:
        self.choices = tuple(choices)
        self._params = params
        self._ends = params.eos_token_ids
        self._weighs_all = weigh_all or params.temperature > 0
        inner = {choice[:depth] for choice in choices for depth in range(len(choice))}
        self._counts_end = [choice in inner for choice in choices]
        self._reads_end = [ends or (params.logprobs is not None and bool(self._ends)) for ends in self._counts_end]
        for place, (text, choice) in enumerate(zip(texts, choices, strict=True)):
            if choice in choices[:place]:
                same = texts[choices.index(choice)]
                raise RequestError(
                    f"the choices {described(same)} and {described(text)} have the same tokens: leave one of them out"
                )
            if not set(choice).isdisjoint(self._ends):
                raise RequestError(f"the choice {described(text)} holds a token that ends a completion: leave it out")
            if self._counts_end[place] and not self._ends:
                raise RequestError(
                    f"the choice {described(text)} begins another one, and the model has no end token to tell them"
                    " apart: leave one of them out"
                )
        self._next: dict[Path, list[int]] = {}  # of each node, the tokens behind it
        for choice in choices:
            for depth, token in enumerate(choice):
                behind = self._next.setdefault(choice[:depth], [])
                if token not in behind:
                    behind.append(token)
        self._known: dict[Path, dict[int, float]] = {}  # of each node that was read, their log probabilities
        self._ending: dict[Path, float] = {}  # and that of an end
        self._reported: dict[Path, dict[int, TokenLogprob]] = {}  # where they are asked for

    @property
    def longest(self) -> int:
        """Positions behind the prompt that a branch takes at most."""
        return max(map(self._depth, range(len(self.choices))))

    @property
    def branch(self) -> Path | None:
        """The tokens behind the prompt whose rows are to run next, from the root on; None where all is known."""
        places = range(len(self.choices))
        if self._weighs_all:
            place = next((place for place in places if not self._is_known(place)), None)
        else:
            place = min(places, key=lambda place: (-self._sum(place), place))
        if place is None or self._is_known(place):
            return None
        return self.choices[place][: self._depth(place)]

    def unread(self, branch: Path) -> int:
        """How many nodes of a branch, behind the root, were read before its first one that was not."""
        return next((depth for depth in range(len(branch)) if branch[: depth + 1] not in self._known), len(branch))

    def learn(self, node: Path, row: Floats) -> None:
        """Take in the logits [V] behind some tokens of a branch; again after a preemption, to the same bits.

        Raises:
            RuntimeFailure: they are no numbers.
        """
        if node in self._known:
            return
        behind = self._next.get(node, [])
        found = log_probabilities(row, [*behind, *self._ends])
        if self._ends:
            self._ending[node] = _log_sum(found[len(behind) :])
        if self._params.logprobs is not None:
            wanted = (*behind, *self._ends[:1])
            self._reported[node] = {token: token_logprob(row, token, self._params.logprobs) for token in wanted}
        self._known[node] = dict(zip(behind, found, strict=False))

    def scores(self) -> list[float]:
        """The log probability of each choice; of one that was not weighed to its end, a bound above it."""
        return [self._sum(place) for place in range(len(self.choices))]

    def answer(self, u: float) -> Path:
        """The tokens of the likeliest choice or, at a temperature, of that at the share u of their weights."""
        scores = self.scores()
        if self._params.temperature == 0:
            return self.choices[scores.index(max(scores))]
        from bossa.sampling.distribution import distribution
        from bossa.sampling.draw import draw

        return self.choices[draw(*distribution(np.array(scores, np.float32), self._params), u)]

    @property
    def end(self) -> Path:
        """The token that ends the answer, where there is one."""
        return self._ends[:1]

    def reported(self, tokens: Path) -> list[TokenLogprob]:
        """The log probabilities of an answer's tokens, where they are asked for."""
        if self._params.logprobs is None:
            return []
        return [self._reported[tokens[:depth]][token] for depth, token in enumerate(tokens)]

    def _depth(self, place: int) -> int:
        """Nodes behind the root that a choice's log probability needs."""
        return len(self.choices[place]) - (not self._reads_end[place])

    def _is_known(self, place: int) -> bool:
        choice = self.choices[place]
        return all(choice[:depth] in self._known for depth in range(self._depth(place) + 1))

    def _sum(self, place: int) -> float:
        """The log probability of a choice, as far as it is known."""
        choice = self.choices[place]
        found = [
            self._known[choice[:depth]][token] for depth, token in enumerate(choice) if choice[:depth] in self._known
        ]
        if self._counts_end[place] and choice in self._ending:
            found.append(self._ending[choice])
        return float(np.array(found).sum())


def _log_sum(logs: Sequence[float]) -> float:
    """The logarithm of a sum of probabilities, from their logarithms."""
    most = max(logs)
    if len(logs) == 1 or most == -np.inf:
        return most
    return most + log(sum(exp(each - most) for each in logs))
