"""The parameters of sampling, declared once: checks, the model's calls, options and documents are made from this.

A parameter is a field of ``SamplingParams`` and, for the calls of a ``LanguageModel``, a key of ``calls.Sampling``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from bossa.checks.arguments import boolean, texts
from bossa.errors import RequestError
from bossa.sampling.declaration import (
    Option,
    biases,
    count,
    decay,
    declared_in,
    distinct_texts,
    functions,
    ids,
    number,
    one_or_more_ids,
    parameter,
    pattern,
    schema,
    sequences,
)

if TYPE_CHECKING:
    from bossa.sampling.logits import LogitsProcessor

PENALTIES = (1e-3, 1e3)
"""The range of repetition penalties, in which logits stay finite when they are divided and multiplied."""

_SHARE = "between 0 and 1"
_PENALTY = number(*PENALTIES, expected="above 0, from 0.001 to 1000", above=0)


@dataclass(frozen=True)
class SamplingParams:
    """How to choose the next token and when to stop. Meanings and order are those of Hugging Face's ``generate``.

    What each means stands beside it, and in ``docs/sampling.md``.

    Raises:
        RequestError: a value is out of range.
    """

    max_new_tokens: int = parameter(
        20,
        count(1),
        "length",
        "tokens to generate at most",
        Option("Tokens after a prompt.", name="max_tokens_to_generate", default=True),
    )
    temperature: float = parameter(
        0.0,
        number(),
        "draw",
        "0 chooses the likeliest token (of equals, the lowest id); more draws",
        Option("0 takes the likeliest token.  [default: 0]"),
    )
    top_k: int = parameter(
        0,
        count(expected="a whole number from 0 (all tokens)"),
        "filter",
        "draw from the k likeliest tokens; 0 from all",
        Option("Draw from the K likeliest tokens; 0: from all."),
    )
    top_p: float = parameter(
        1.0,
        number(0, 1, _SHARE),
        "filter",
        "draw from the fewest likeliest tokens that hold this much probability",
        Option("Draw from the likeliest that hold this probability."),
    )
    min_p: float = parameter(
        0.0,
        number(0, 1, _SHARE),
        "filter",
        "drop tokens that are less likely than this share of the likeliest one's probability",
        Option("Drop those below this share of the likeliest."),
    )
    repetition_penalty: float = parameter(
        1.0,
        _PENALTY,
        "processor",
        "divides the logits above 0, and multiplies those below, of tokens seen in prompt or output",
        Option("Above 1: repeat less."),
    )
    seed: int = parameter(
        0,
        count(0, 2**64 - 1, "a whole number from 0 to 2**64 - 1"),
        "draw",
        "with a request's id, its sample and a position, all that a draw depends on",
        Option("What random draws depend on.  [default: 0]"),
    )
    stop: tuple[str, ...] = parameter(
        (),
        texts,
        "text",
        "texts before which the completion is cut",
        Option("End a completion before this text; may be repeated.", metavar="TEXT", several=True),
    )
    eos_token_ids: tuple[int, ...] = parameter(
        (), ids, "length", "tokens that end a completion; a model's calls give its own"
    )
    ignore_eos: bool = parameter(
        False, boolean, "length", "go on after them, and take them for tokens like others in what is said of them below"
    )
    logprobs: int | None = parameter(
        None,
        count(expected="a whole number from 0, or None", or_none=True),
        "result",
        "give each new token's log probability under the raw logits, and this many of the likeliest tokens with theirs;"
        " None: none",
        Option("In --output, the log probability of each new token, and the K likeliest with theirs.", metavar="K"),
    )
    speculate: int = parameter(
        0,
        count(),
        "draw",
        "tokens to guess at most for each that is generated; the tokens stay the same, see `engine/speculation.py`",
        Option(
            "Guess up to N tokens from what came before, and keep those that are right.  [N, if not given: 8]",
            metavar="[N]",
            bare=8,
        ),
    )
    max_length: int | None = parameter(
        None,
        count(1, expected="a whole number from 1, or None", or_none=True),
        "length",
        "tokens of prompt and completion together, at most, in place of `max_new_tokens`; None: as that says",
    )
    min_length: int = parameter(
        0, count(), "processor", "no end token before prompt and completion together have this many tokens"
    )
    min_new_tokens: int | None = parameter(
        None,
        count(expected="a whole number from 0, or None", or_none=True),
        "processor",
        "no end token before so many new tokens; None: as `min_length` says",
        Option("No end before so many tokens."),
    )
    typical_p: float = parameter(
        1.0,
        number(5e-324, 1, "above 0, up to 1", above=0),
        "filter",
        "draw from the tokens of the most typical information (Meister et al., 2022) that hold this much probability",
        Option("Draw from the most typical that hold this probability."),
    )
    epsilon_cutoff: float = parameter(
        0.0, number(0, 1, _SHARE), "filter", "drop tokens that are less likely than this; 0 and 1 drop none"
    )
    eta_cutoff: float = parameter(
        0.0,
        number(0, 1, _SHARE),
        "filter",
        "drop tokens that are less likely than this, or less where the choice is open (Hewitt et al., 2022); 0 and 1"
        " drop none",
    )
    top_h: float | None = parameter(
        None,
        number(5e-324, 1, "above 0, up to 1, or None", above=0, or_none=True),
        "filter",
        "draw from the likeliest tokens that hold this share of the entropy of the 100 likeliest; None: from all",
    )
    no_repeat_ngram_size: int = parameter(
        0,
        count(),
        "processor",
        "no n-gram of this many tokens comes twice in prompt and completion; 0: they may",
        Option("No N tokens in a row come twice.", metavar="N"),
    )
    encoder_repetition_penalty: float = parameter(
        1.0, _PENALTY, "processor", "multiplies the logits above 0, and divides those below, of the prompt's tokens"
    )
    encoder_no_repeat_ngram_size: int = parameter(
        0, count(), "processor", "no n-gram of this many tokens of the prompt comes again; 0: they may"
    )
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = parameter(
        (),
        biases,
        "processor",
        "pairs of token ids and what is added to the logit of the last of them where the others stand before it",
        tokens=lambda value: chain.from_iterable(tokens for tokens, _ in value),
    )
    bad_words_ids: tuple[tuple[int, ...], ...] = parameter(
        (),
        sequences,
        "processor",
        "lists of token ids that do not come; an end token alone may",
        tokens=chain.from_iterable,
    )
    suppress_tokens: tuple[int, ...] = parameter(
        (), ids, "processor", "tokens that do not come", tokens=lambda value: value
    )
    begin_suppress_tokens: tuple[int, ...] = parameter(
        (), ids, "processor", "tokens that do not come first", tokens=lambda value: value
    )
    forced_bos_token_id: int | None = parameter(
        None,
        count(expected="a token id, or None", or_none=True),
        "processor",
        "the token that comes after a prompt of one token; None: any",
        tokens=lambda value: () if value is None else (value,),
    )
    forced_eos_token_id: tuple[int, ...] = parameter(
        (),
        one_or_more_ids,
        "processor",
        "the token, or one of those, that comes last where the length ends a completion",
        tokens=lambda value: value,
    )
    exponential_decay_length_penalty: tuple[int, float] | None = parameter(
        None,
        decay,
        "processor",
        "after how many new tokens the logits of end tokens begin to grow, and their factor a token; None: never",
    )
    logits_processors: tuple[LogitsProcessor, ...] = parameter(
        (),
        functions,
        "processor",
        "functions of the token ids so far and the row of logits (float32 [V]) to such a row, called after all the"
        " penalties and masks above and before temperature and filters",
    )
    choices: tuple[str, ...] = parameter(
        (),
        distinct_texts,
        "constraint",
        "texts of which one is the completion: the likeliest as a whole or, at a temperature, one drawn by their"
        " probabilities",
        Option("The answer is the likeliest of these texts; or a JSON list of them.", metavar="TEXT,…"),
    )
    regex: str | None = parameter(
        None,
        pattern,
        "constraint",
        "a regular expression that the whole completion matches; None: any",
        Option("The answer matches this regular expression.", metavar="RE"),
    )
    json_schema: str | None = parameter(
        None,
        schema,
        "constraint",
        "a JSON schema, a dict or its text, that the completion is JSON of; None: any",
        Option("The answer is JSON of the JSON schema in this file.", metavar="FILE"),
    )

    def __post_init__(self) -> None:
        for name, declared in PARAMETERS.items():
            object.__setattr__(self, name, declared.check(name, getattr(self, name)))
        self._check_constraints()

    def _check_constraints(self) -> None:
        """Refuse what no completion could keep to."""
        asked = [name for name, neutral in _CONSTRAINTS if getattr(self, name) != neutral]
        if len(asked) > 1:
            raise RequestError(f"{' and '.join(asked)} each say what the completion must be: give one of them")
        if asked and self.ignore_eos:
            raise RequestError(
                f"{asked[0]} and ignore_eos contradict each other: a completion that must be something"
                " ends there; leave one of them out"
            )
        if self.choices and self.logits_processors:
            raise RequestError(
                "choices are weighed by the raw logits, which logits_processors do not change: leave one of them out"
            )

    @property
    def processes(self) -> bool:
        """Whether there are logits processors."""
        return any(getattr(self, name) != neutral for name, neutral in _PROCESSORS)

    @property
    def has_grammar(self) -> bool:
        """Whether tokens are masked by what may follow of a regular expression or a JSON schema."""
        return self.regex is not None or self.json_schema is not None

    @property
    def constrained(self) -> bool:
        """Whether something is said of what the completion must be."""
        return bool(self.choices) or self.has_grammar

    @property
    def greedy(self) -> bool:
        """Whether the next token is the likeliest one, with no look at what came before."""
        return self.temperature == 0 and not self.processes and not self.constrained

    def longest(self, max_seq_length: int) -> int:
        """Tokens that prompt and completion together may have in a program that allows so many."""
        return max_seq_length if self.max_length is None else min(max_seq_length, self.max_length)

    def tokens(self) -> Iterator[tuple[str, int]]:
        """Each token id that a parameter names, with the parameter's name; not those that end a completion."""
        for name, named in _TOKENS:
            for token in named(getattr(self, name)):
                yield name, token


PARAMETERS = declared_in(SamplingParams)
"""All of them by name, in the order of ``SamplingParams``."""

FILTERS = frozenset(name for name, each in PARAMETERS.items() if each.kind == "filter")
"""Those that say which tokens may be drawn."""

CALLS = PARAMETERS.keys() - {"eos_token_ids"}
"""Those that the calls of a ``LanguageModel`` take; their types stand in ``calls.py``."""

_PROCESSORS = tuple((name, each.neutral) for name, each in PARAMETERS.items() if each.kind == "processor")
_CONSTRAINTS = tuple((name, each.neutral) for name, each in PARAMETERS.items() if each.kind == "constraint")
_TOKENS = tuple((name, each.tokens) for name, each in PARAMETERS.items() if each.tokens is not None)
