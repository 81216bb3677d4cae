"""Regular expressions from outside, matched in time that grows with the text alone, whatever the expression.

Python's own matcher tries one way after the other, and `(a+)+$` makes it try 2^n of them. Here an expression becomes an
automaton (Thompson, "Regular expression search algorithm", 1968), all of whose states are followed at once, and sets of
states that were met are kept (as in Aho and Ullman's lazy DFA): a letter costs one look-up once its set is known.

What needs more than an automaton is refused: references to groups, conditions on what stands before or after, word
boundaries and flags. `$` means the end, and not also the place before a last line break.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

LONGEST = 2_000
"""Characters of an expression."""
DEEPEST = 20
"""Groups inside each other."""
MOST = 4_000
"""States of one expression, in which `a{100}` counts as a hundred."""
WORK = 20_000_000
"""States that all searches may look at before they are given up: seconds."""
KEPT = 5_000
"""Sets of states that are kept; then all are forgotten and made anew."""

_PLAIN = re.compile(r"\^?(?:[A-Za-z0-9_/ -]|\\[^A-Za-z0-9])*\$?\Z", re.DOTALL)
_ATOM = re.compile(
    r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[dDwWsSntrfva]|[^A-Za-z0-9])"
    r"|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\\[(){}*+?|^$]",
    re.DOTALL,
)
_COUNTS = re.compile(r"\{(?:(?P<low>\d+)(?P<comma>,(?P<high>\d*))?|,(?P<most>\d*))\}", re.ASCII)

Accepts = str | Callable[[str], object]
"""One letter, or what says whether a letter is accepted."""


class PatternError(ValueError):
    """An expression that is not one, or that is not matched; the message says why."""


@dataclass
class _State:
    """A state: the letters that lead on from it, or none where all of `then` are entered at once."""

    accepts: Accepts | None = None
    then: list[int] = field(default_factory=list)
    anchor: str = ""


@dataclass
class _Set:
    """States that are followed at once, and the sets that letters lead to."""

    states: tuple[int, ...]
    found: bool
    found_at_end: bool
    then: dict[str, _Set] = field(default_factory=dict)


def check(pattern: str) -> None:
    """Refuses an expression that `Patterns` would refuse.

    Raises:
        PatternError: it does.
    """
    if len(pattern) > LONGEST or not _PLAIN.match(pattern):
        Patterns([pattern])


def is_supported(pattern: str) -> bool:
    """Whether `check` takes an expression."""
    try:
        check(pattern)
    except PatternError:
        return False
    return True


class Patterns:
    """Several expressions; a text is found where one of them matches somewhere in it, as `re.search` does."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Reads the expressions.

        Raises:
            PatternError: one of them is none, or is not matched; see above.
        """
        self._states = [_State()]
        self._end = 0
        starts = [_Reader(pattern, self._states, self._end).read() for pattern in patterns]
        begun = self._closure(starts, at_start=True)
        self._empty = self._end in self._closure(starts, at_start=True, at_end=True)
        self._starts = self._closure(starts)
        self._always = self._accepting(self._starts, at_end=False)
        self._at_end = self._accepting(self._starts, at_end=True)
        self._entered: dict[str, list[int]] = {}
        self._sets: dict[tuple[int, ...], _Set] = {}
        self._work = 0
        self._first = self._set(begun - self._starts)

    def search(self, text: str) -> bool:
        """Whether one of the expressions matches somewhere in the text.

        Raises:
            PatternError: the expressions are made to take long, and this object has searched for too long.
        """
        if not text:
            return self._empty
        current = self._first
        for letter in text:
            if current.found:
                return True
            following = current.then.get(letter)
            if following is None:
                following = self._follow(current, letter)
            current = following
        return current.found or current.found_at_end

    def _follow(self, current: _Set, letter: str) -> _Set:
        entered = self._entered.get(letter)
        if entered is None:
            entered = self._entered[letter] = self._after(self._starts, letter)
        if len(self._sets) > KEPT:
            self._sets.clear()
            self._first = self._set(set(self._first.states))
        following = self._set(self._closure([*self._after(current.states, letter), *entered]))
        self._work += len(current.states) + len(following.states)
        if self._work > WORK:
            raise PatternError("they take too long")
        current.then[letter] = following
        return following

    def _after(self, states: Iterable[int], letter: str) -> list[int]:
        found = []
        for number in states:
            accepts = self._states[number].accepts
            if accepts is not None and (accepts == letter if isinstance(accepts, str) else accepts(letter)):
                found += self._states[number].then
        return found

    def _set(self, states: set[int]) -> _Set:
        key = tuple(sorted(states))
        known = self._sets.get(key)
        if known is None:
            found, at_end = self._accepting(states, at_end=False), self._accepting(states, at_end=True)
            known = self._sets[key] = _Set(key, found or self._always, at_end or self._at_end)
        return known

    def _closure(self, states: Iterable[int], *, at_start: bool = False, at_end: bool = False) -> set[int]:
        """The states, and all that are entered with them."""
        waiting, met = list(states), set()
        while waiting:
            number = waiting.pop()
            if number in met:
                continue
            met.add(number)
            state = self._states[number]
            passed = not state.anchor or (at_start if state.anchor == "^" else at_end)
            if state.accepts is None and passed:
                waiting += state.then
        return met

    def _accepting(self, states: Iterable[int], *, at_end: bool) -> bool:
        return self._end in (self._closure(states, at_end=True) if at_end else set(states))


class _Reader:
    """Reads one expression into states, from the end of its text to the start's number."""

    def __init__(self, pattern: str, states: list[_State], end: int) -> None:
        if len(pattern) > LONGEST:
            raise PatternError(f"it has more than {LONGEST} characters")
        self._text = pattern
        self._at = 0
        self._states = states
        self._limit = len(states) + MOST
        self._end = end
        self._depth = 0

    def read(self) -> int:
        start, out = self._choice()
        if self._at < len(self._text):
            raise PatternError("a ')' closes nothing")
        self._states[out].then.append(self._end)
        return start

    def _new(self, accepts: Accepts | None = None, *then: int, anchor: str = "") -> int:
        if len(self._states) >= self._limit:
            raise PatternError(f"it has more than {MOST} states")
        self._states.append(_State(accepts, list(then), anchor))
        return len(self._states) - 1

    def _choice(self) -> tuple[int, int]:
        """Sequences with `|` between them. Returns the state that begins them and the one that ends them."""
        if self._depth > DEEPEST:
            raise PatternError(f"it has more than {DEEPEST} groups inside each other")
        self._depth += 1
        start, out = self._new(), self._new()
        while True:
            first, last = self._sequence()
            self._states[start].then.append(first)
            self._states[last].then.append(out)
            if not self._take("|"):
                self._depth -= 1
                return start, out

    def _sequence(self) -> tuple[int, int]:
        start = last = self._new()
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            first, out = self._repeated()
            self._states[last].then.append(first)
            last = out
        return start, last

    def _repeated(self) -> tuple[int, int]:
        begin = self._at
        start, out = self._atom()
        after = self._at
        low, high = self._quantifier()
        if (low, high) == (1, 1):
            return start, out
        resume, self._at = self._at, after
        first = last = self._new()
        copies = low if high is None else high
        for number in range(copies):
            if number:
                self._at = begin
                start, out = self._atom()
            self._states[last].then.append(start)
            after_it = self._new()
            self._states[out].then.append(after_it)
            if number >= low:
                self._states[last].then.append(after_it)
            if high is None and number == low - 1:
                self._states[after_it].then.append(start)
            last = after_it
        if high is None and low == 0:
            self._states[first].then.append(start)
            self._states[out].then.append(first)
        self._at = resume
        return first, last

    def _quantifier(self) -> tuple[int, int | None]:
        """The least and the most times that the atom before may stand."""
        if self._take("*"):
            times: tuple[int, int | None] = (0, None)
        elif self._take("+"):
            times = (1, None)
        elif self._take("?"):
            times = (0, 1)
        elif (counts := _COUNTS.match(self._text, self._at)) is not None:
            self._at = counts.end()
            times = _times(counts)
        else:
            return 1, 1
        self._take("?")  # shortest first: the same texts
        if self._text[self._at : self._at + 1] in ("*", "+", "?") or _COUNTS.match(self._text, self._at):
            raise PatternError("it repeats a repetition")
        return times

    def _atom(self) -> tuple[int, int]:
        if self._take("("):
            if self._take("?") and not self._take(":"):
                raise PatternError("it has a group with a meaning of its own, as (?=…)")
            start, out = self._choice()
            if not self._take(")"):
                raise PatternError("a '(' is not closed")
            return start, out
        for text, anchor in (("^", "^"), (r"\A", "^"), ("$", "$"), (r"\Z", "$")):
            if self._take(text):
                if self._text[self._at : self._at + 1] in ("*", "+", "?") or _COUNTS.match(self._text, self._at):
                    raise PatternError(f"it repeats {text!r}, which is no letter")
                out = self._new()
                return self._new(None, out, anchor=anchor), out
        if self._take("{"):  # no counts follow, so it is a letter
            accepts: Accepts = "{"
        else:
            match = _ATOM.match(self._text, self._at)
            if match is None:
                raise PatternError(f"{self._text[self._at : self._at + 2]!r} is not understood")
            self._at = match.end()
            accepts = _accepts(match[0])
        out = self._new()
        return self._new(accepts, out), out

    def _take(self, text: str) -> bool:
        taken = self._text.startswith(text, self._at)
        self._at += len(text) if taken else 0
        return taken


def _times(counts: re.Match[str]) -> tuple[int, int | None]:
    texts = [counts[name] or "" for name in ("low", "high", "most")]
    if any(len(text) > 4 for text in texts):
        raise PatternError(f"it has more than {MOST} states")
    low, high, most = (int(text) if text else None for text in texts)
    if low is None:
        return 0, most
    if counts["comma"] is None:
        return low, low
    if high is not None and high < low:
        raise PatternError("it repeats from more to fewer times")
    return low, high


def _accepts(atom: str) -> Accepts:
    if len(atom) == 1 and atom != ".":
        return atom
    if len(atom) == 2 and not atom[1].isalnum():
        return atom[1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(atom).fullmatch
    except re.error as error:
        raise PatternError(str(error)) from None
