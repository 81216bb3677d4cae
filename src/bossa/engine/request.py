"""What is asked for, the state of a request while it runs, and what comes back."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from typing import TYPE_CHECKING

from bossa.checks.arguments import token_ids
from bossa.engine.logprobs import TokenLogprob
from bossa.engine.program import Floats
from bossa.engine.speculation import Drafter
from bossa.engine.stopping import FinishReason, Stopper
from bossa.errors import BossaError
from bossa.sampling.logits import LogitsProcessor
from bossa.sampling.parameters import SamplingParams

if TYPE_CHECKING:
    from bossa.engine.choices import Chooser
    from bossa.sampling.grammar import Constraint, Forced


class State(Enum):
    NEW = auto()
    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()
    ABORTED = auto()


@dataclass(frozen=True)
class Observer:
    """Reads logits of a prompt instead of generating from it.

    Attributes:
        first: the first position whose logits are wanted.
        receive: called with a position p and the logits [n, V] of positions p to p + n - 1, good during the call.
            After a preemption the same positions come again, with the same bits.
    """

    first: int
    receive: Callable[[int, Floats], None]


@dataclass(eq=False)
class Request:
    """One sequence: its prompt, how to go on from it, and how far it has come.

    Attributes:
        id: with the seed, the key of its random numbers: the record's index, or what its owner chose (0 to 2**64 - 1).
        prompt_token_ids: the prompt; at least one token.
        params: how to sample and when to stop.
        observer: reads the prompt's logits, and then nothing is generated.
        stream: whether the text is wanted as it grows.
        salt: what its keys and values follow from besides its tokens: the hash of its adapter; the engine's, if empty.
        sample: which of several completions of one prompt this is, from 0: the third key of its random numbers.
        weigh_all: whether the log probabilities of all its choices are wanted, where it has any.
        tokens: the prompt and what was generated so far.
        blocks: the KV pages that it holds, in the order of positions.
        computed: positions whose keys and values are in those pages.
        block_hashes: of the full pages of its tokens, as far as they were needed; see ``prefix.py``.
        hashed_blocks: pages that the pool knows by their hashes.
        slot: that of its recurrent state while it runs, where the program keeps any; else -1.
        replays: guesses of its last step that held, by which the state in the slot has yet to be moved.
        aim: the position after which the next snapshot of the state is wanted; see ``snapshots.py``.
        snapshot_at: the position after which it was last taken, or from which the request started.
        branch: blocks of which others had pages when it started.
        turn: the hash of the last snapshot within its output.
        limit: tokens that it may come to have.
        best_only: whether the likeliest token is all that it wants of a row's logits.
        drafter: guesses at its next tokens, where that is wanted.
        chooser: what is known of its choices, where it has any.
        constraint: follows it through its grammar, where it has one.
        laid: tokens of a branch of these whose keys and values lie behind the prompt's.
        logprobs: of its new tokens, where they are wanted.
        arrival: its place among all requests submitted; older ones go first.
        error: what it failed with, it alone; whoever waits for it gets this.
    """

    id: int
    prompt_token_ids: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    observer: Observer | None = None
    stream: bool = False
    sample: int = 0
    salt: bytes = b""
    weigh_all: bool = False
    state: State = field(default=State.NEW, init=False)
    tokens: list[int] = field(init=False)
    blocks: array[int] = field(default_factory=lambda: array("i"), init=False)
    computed: int = field(default=0, init=False)
    block_hashes: list[bytes] = field(default_factory=list, init=False)
    hashed_blocks: int = field(default=0, init=False)
    slot: int = field(default=-1, init=False)
    replays: int = field(default=0, init=False)
    aim: int = field(default=0, init=False)
    snapshot_at: int = field(default=0, init=False)
    branch: int = field(default=0, init=False)
    turn: bytes | None = field(default=None, init=False)
    limit: int = field(default=0, init=False)
    best_only: bool = field(init=False)
    drafter: Drafter | Forced | None = field(default=None, init=False)
    chooser: Chooser | None = field(default=None, init=False)
    constraint: Constraint | None = field(default=None, init=False)
    laid: tuple[int, ...] = field(default=(), init=False)
    logprobs: list[TokenLogprob] = field(default_factory=list, init=False)
    arrival: int = field(default=-1, init=False)
    finish_reason: FinishReason | None = field(default=None, init=False)
    stopper: Stopper | None = field(default=None, init=False)
    error: BossaError | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.prompt_token_ids = token_ids("prompt_token_ids", self.prompt_token_ids)
        self.tokens = list(self.prompt_token_ids)
        self.best_only = self.observer is None and self.params.greedy and self.params.logprobs is None
        if self.params.speculate and self.observer is None and not self.params.choices:
            self.drafter = Drafter(self.params.speculate)

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.finish_reason is not None or self.error is not None

    @property
    def pending(self) -> int:
        """Tokens whose rows have not run yet."""
        return len(self.tokens) - self.computed

    @property
    def reach(self) -> int:
        """Positions that it needs pages for: those of its tokens, and of any branch of its choices behind them."""
        return len(self.tokens) + (self.chooser.longest if self.chooser is not None else 0)

    @property
    def branches(self) -> bool:
        """Whether branches of its choices run next, behind its prompt."""
        return self.chooser is not None and self.computed == len(self.tokens)

    @property
    def decodes(self) -> bool:
        """Whether it generates, and all but its last token has run."""
        return self.computed == len(self.tokens) - 1 and self.observer is None

    @property
    def decodes_unseen(self) -> bool:
        """Whether its next tokens may be found in several steps at once: nobody looks at them meanwhile."""
        assert self.stopper is not None
        return self.best_only and self.drafter is None and not self.stopper.follows

    @cached_property
    def processors(self) -> tuple[LogitsProcessor, ...]:
        """What its logits go through before a token is chosen; asked for once its limit is known."""
        if not self.params.processes and self.constraint is None:
            return ()
        from bossa.sampling.chain import logits_processors  # which most requests do without

        return logits_processors(self.params, self.prompt_token_ids, self.limit, self.constraint)

    @property
    def output_ids(self) -> list[int]:
        return self.tokens[len(self.prompt_token_ids) :]

    @property
    def text(self) -> str:
        """The text so far that no stop string can take back; all of it once the request is finished."""
        return self.stopper.text if self.stopper is not None else ""

    def completion(self, index: int) -> Completion:
        """The result of a finished request."""
        assert self.finish_reason is not None
        return Completion(
            index,
            self.text,
            self.output_ids,
            self.finish_reason,
            list(self.prompt_token_ids),
            self.sample,
            list(self.logprobs) if self.params.logprobs is not None else None,
            self.chooser.scores() if self.chooser is not None and self.weigh_all else None,
        )


@dataclass(frozen=True)
class Completion:
    """What was generated from one prompt.

    Attributes:
        index: the prompt's place among those given.
        text: the new text: up to the stop string, and without the token that ended it.
        token_ids: every new token, the end-of-sequence token and those of a stop string included.
        finish_reason: "stop" at an end-of-sequence token or a stop string, "length" at a limit.
        prompt_token_ids: the prompt, as it was run.
        sample: its place among the completions of its prompt.
        logprobs: of each new token, where they were asked for.
        choice_logprobs: of each choice, where all of them were weighed.
    """

    index: int
    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    prompt_token_ids: list[int]
    sample: int = 0
    logprobs: list[TokenLogprob] | None = None
    choice_logprobs: list[float] | None = None
