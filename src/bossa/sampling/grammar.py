"""Answers that match a regular expression, or are JSON of a schema: which tokens may come next.

llguidance (https://github.com/guidance-ai/llguidance) follows the text that tokens have, byte by byte, through a lexer
and an Earley parser, and gives a bit for each token that may follow. It is imported with the first such request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bossa.errors import RequestError, RuntimeFailure, TokenizerError
from bossa.host.resources import cores
from bossa.sampling.logits import Floats, Ids
from bossa.sampling.parameters import SamplingParams

SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON is written in one line, as Python's ``json.dumps`` writes it: a model that may go on with white space may never
end. A schema's own ``x-guidance`` goes before."""

GRAMMARS = 64
"""That are kept compiled: one takes about a millisecond, and a large one seconds."""

Masks = NDArray[np.int32]
"""A bit for each token that may come and, behind these, one for an end, [n, width / 32 + 1] words."""


class Vocabulary(Protocol):
    """What of a tokenizer is read here."""

    @property
    def id_limit(self) -> int: ...

    def to_json(self) -> str: ...

    def token_texts(self) -> tuple[list[str], list[int]]: ...


class Grammars:
    """Compiled grammars over the tokens of one model.

    Args:
        tokenizer: the model's.
        vocab_size: V, the width of its logits; there may be fewer tokens.
        end_tokens: those that end a completion; at least one.

    Raises:
        TokenizerError: the tokens have no texts of their own.
        RequestError: llguidance is not installed.
    """

    def __init__(self, tokenizer: Vocabulary, vocab_size: int, end_tokens: Sequence[int]) -> None:
        try:
            import llguidance
        except ImportError as error:
            raise RequestError(
                f"regex and json_schema need the package llguidance ({error}): pip install llguidance"
            ) from error
        if not hasattr(tokenizer, "to_json"):
            raise TokenizerError(
                "regex and json_schema need a tokenizer of Bossa's own, which knows the text of each token: load the"
                " model with its tokenizer.json"
            )
        self._library = llguidance
        self._width = max(vocab_size, tokenizer.id_limit)  # either may be padded
        self._tokens = _tokens(llguidance, tokenizer, self._width, end_tokens)
        self._limits = llguidance.LLParserLimits(verbose_errors=False)
        self._ends = np.array([token for token in end_tokens if token < vocab_size], np.intp)
        self._compiled = lru_cache(GRAMMARS)(self._compile)

    def constraint(self, params: SamplingParams) -> Constraint:
        """What a new completion is held to.

        Raises:
            RequestError: the regular expression or the schema cannot be followed.
        """
        return Constraint(self._compiled(params.regex, params.json_schema), self._width, self._ends)

    def _compile(self, regex: str | None, schema: str | None) -> Any:
        matcher = self._library.LLMatcher
        name = "regex" if regex is not None else "json_schema"
        try:
            if regex is not None:
                grammar = matcher.grammar_from_regex(regex)
            else:
                grammar = matcher.grammar_from_json_schema(schema, defaults=SPACING)
            made = matcher(self._tokens, grammar, log_level=0, limits=self._limits)
        except (ValueError, RuntimeError) as error:
            raise RequestError(_refused(name, str(error))) from error
        if made.is_error():
            raise RequestError(_refused(name, made.get_error()))
        return made


class Constraint:
    """Follows one completion through its grammar.

    What it holds follows from the tokens so far: it goes on where these go on, and back where they part from what it
    has taken in, so that a request which is computed again, or was cut off anywhere, needs nothing more.

    Args:
        start: the grammar at its beginning, which stays there.
        width: tokens that the grammar knows, no fewer than logits have.
        ends: the tokens that end a completion.
    """

    def __init__(self, start: Any, width: int, ends: Ids) -> None:
        self._matcher = start.deep_copy()
        self._start = start
        self._taken: list[int] | None = []  # None while it changes: what cuts that off leaves nothing that is certain
        self._width = width
        self._ends = ends
        self.words = width // 32 + 1
        self._ahead: tuple[list[int], Sequence[int], Masks] | None = None

    def mask(self, output: Sequence[int], row: Floats) -> Floats:
        """Logits [V] with -inf for each token that may not follow the new ones so far; changed in place.

        Raises:
            RuntimeFailure: the grammar became too large to follow.
        """
        words = self._found(output)
        if words is None:
            self._follow(output)
            words = np.empty(self.words, np.int32)
            self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
            self._check()
        may = np.unpackbits(words.view(np.uint8), count=self._width + 1, bitorder="little")
        may[self._ends] = may[-1]  # also of one that is a text, which could come before the end
        np.copyto(row, -np.inf, where=may[: len(row)] == 0)
        return row

    def forced(self, output: Sequence[int]) -> list[int]:
        """The tokens that alone may come next, one after the other; none where that is not certain."""
        try:
            self._follow(output)
            found = list(self._matcher.compute_ff_tokens())
            self._check()
            return found
        except RuntimeFailure:
            return []  # the mask of the next token says so

    def _found(self, output: Sequence[int]) -> Masks | None:
        """A mask that was computed side by side with others, if it is the one for these tokens."""
        if self._ahead is None:
            return None
        before, drafts, masks = self._ahead
        held = len(output) - len(before)
        if not 0 <= held < len(masks) or list(output) != [*before, *drafts[:held]]:
            return None
        found: Masks = masks[held]
        return found

    def _follow(self, output: Sequence[int]) -> None:
        """Take in the new tokens so far."""
        wanted, taken = list(output), self._taken
        self._taken = None
        if taken is None or self._matcher.is_error():
            self._matcher, taken = self._start.deep_copy(), []
        same = len(taken)
        if wanted[:same] != taken:
            same = next(
                (at for at, (one, other) in enumerate(zip(taken, wanted, strict=False)) if one != other),
                min(len(taken), len(wanted)),
            )
            self._matcher.rollback(len(taken) - same)
        if same < len(wanted):
            self._matcher.consume_tokens(wanted[same:])
        self._check()
        self._taken = wanted

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error()
            if "KeyboardInterrupt" in reason:  # it came while llguidance had a tokenizer in Python at work
                raise KeyboardInterrupt
            raise RuntimeFailure(
                f"the answer cannot be followed any further ({_first_line(reason)}): use a simpler regex or json_schema"
            )


class MaskPool:
    """Computes the masks of several requests side by side, in threads of llguidance's own."""

    def __init__(self) -> None:
        self._executor: Any = None

    def prepare(self, wanted: Iterable[tuple[Constraint, Sequence[int], Sequence[int]]]) -> None:
        """Compute the next masks of some constraints: with each its new tokens so far, and guesses at the next ones.

        There is one mask more than guesses; what cannot be computed here is computed, or refused, where it is used.
        """
        ready = []
        for constraint, output, drafts in wanted:
            constraint._ahead = None
            try:
                constraint._follow(output)
            except RuntimeFailure:
                continue
            ready.append((constraint, output, drafts))
        if not ready:
            return
        masks = np.empty((sum(1 + len(drafts) for *_, drafts in ready), ready[0][0].words), np.int32)
        places, place = [], 0
        for constraint, _, drafts in ready:
            places.append((constraint._matcher, place, list(drafts)))
            place += 1 + len(drafts)
        if self._executor is None:
            import llguidance

            self._executor = llguidance.LLExecutor(cores())
        try:
            self._executor.unsafe_compute_mask_ptr_with_draft_token(
                places, masks.ctypes.data, 4 * masks.shape[1], len(masks)
            )
        except (ValueError, RuntimeError):
            return
        for (constraint, output, drafts), (matcher, first, _) in zip(ready, places, strict=True):
            if matcher.is_error():
                if "KeyboardInterrupt" in matcher.get_error():
                    raise KeyboardInterrupt
                continue
            constraint._ahead = list(output), list(drafts), masks[first : first + 1 + len(drafts)]


class Forced:
    """Drafts of the tokens that a grammar leaves no choice of; where there are none, those of another drafter.

    Attributes:
        most: guesses at a time.
    """

    def __init__(self, constraint: Constraint, prompt: int, other: Any) -> None:
        self._constraint, self._prompt, self._other = constraint, prompt, other
        self._theirs = False

    def draft(self, tokens: Sequence[int], room: int, worth: float) -> list[int]:
        """At most ``room`` tokens that may follow."""
        forced = self._constraint.forced(tokens[self._prompt :])[:room]
        self._theirs = not forced and self._other is not None
        return self._other.draft(tokens, room, worth) if self._theirs else forced

    def learn(self, held: int, failed: bool) -> None:
        """How many guesses of the last draft held, and whether the next one failed."""
        if self._theirs:
            self._other.learn(held, failed)


def _tokens(library: Any, tokenizer: Vocabulary, width: int, end_tokens: Sequence[int]) -> Any:
    """The tokens as llguidance knows them: read by itself or, of kinds that it does not read, by their texts.

    Behind them is one more, which ends a completion too: its bit says whether an end may come.
    """
    more = {"n_vocab": width + 1, "eos_token": [width, *end_tokens]}
    try:
        try:
            return library.LLTokenizer(tokenizer.to_json(), **more)
        except ValueError:
            texts, special = tokenizer.token_texts()
            texts += [""] * (width + 1 - len(texts))
            return library.LLTokenizer(_Texts(texts, special, width), **more)
    except (ValueError, RuntimeError) as error:
        raise TokenizerError(
            f"the tokenizer has no text for each token that a regex or json_schema could be followed by"
            f" ({_first_line(str(error))}): use another tokenizer"
        ) from error


class _Texts:
    """A vocabulary as llguidance takes it from Python."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, texts: Sequence[str], special: Sequence[int], end: int) -> None:
        self.tokens = [text.encode() for text in texts]
        self.special_token_ids = list(special)
        self.eos_token_id = end
        self._ids = {token: place for place, token in reversed(list(enumerate(self.tokens))) if token}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: str | bytes) -> list[int]:
        """Tokens that have this text, each the longest that fits: what a text that is forced is guessed by."""
        rest = text.encode() if isinstance(text, str) else bytes(text)
        found = []
        while rest:
            length = next((size for size in range(self._longest, 0, -1) if rest[:size] in self._ids), 0)
            if not length:
                break
            found.append(self._ids[rest[:length]])
            rest = rest[length:]
        return found


def _refused(name: str, reason: str) -> str:
    what = "regular expression" if name == "regex" else "JSON schema"
    return f"{name} is no {what} that can be followed ({_first_line(reason)}): correct or simplify it"


def _first_line(reason: str) -> str:
    """What a message of llguidance says, without the lines that draw where: the reason stands in its last."""
    lines = [line.strip() for line in reason.split("\n") if line.strip()]
    told = next((line for line in lines if line.startswith("error: ")), "")
    first = re.sub(r"^at \d+\(\d+\): ", "", lines[0]) if lines else "no reason given"
    return told.removeprefix("error: ") or first
