r"""Bounds on what a tokenizer's parts may do to a text, looked up before any text is given to them.

Two things can grow without end: a pattern that is tried in exponentially or cubically many ways, and replacements of
which one multiplies what another made. The parts are small beside the vocabulary, so they are looked at as JSON.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from bossa.errors import TokenizerError, counted

if TYPE_CHECKING:
    import tokenizers

MOST_GROWTH = 1000.0
"""Characters that one character may become; real tokenizers need some 20."""
LONGEST_PATTERN = 20_000
LONGEST_WORD = 1000
"""Letters in a word that WordPiece may try to split, which takes their cube; 100 is usual."""
LONGEST_PREFIX = 32
"""Letters that may be put before each piece of a text, or stand in a model for the start or the end of a word."""
MOST_STRIPPED = 8
"""Letters that may be taken off the start of a text for its tokens to be given out as they come; 1 is usual."""
LONGEST_FORM = 64
"""Bytes that a table of characters may have for one, without counting as growth; Unicode's own need 33."""
MOST_SPECIAL = 1000
"""Tokens that may be added around a text."""
MOST_COPIES = 4
"""Times that the tokens of a text may stand in what is made of it; once is usual."""
LONGEST_RESULT = 1 << 25
"""Characters that a text may become where it grows at all."""

_LATER, _ESCAPED = re.compile(rb'"normalizer"\s*:\s*[^\d\s]'), re.compile(rb"\\u00[67]")
"""A normalizer that stands after the model, and a letter that is written so that its name would not be seen."""


@dataclass(frozen=True)
class Growth:
    """At most ``factor`` characters for each one, and ``more`` for the text."""

    factor: float = 1.0
    more: int = 0

    def of(self, length: int) -> float:
        """The most characters that a text of this length may become."""
        return (length + self.more) * self.factor


def check(backend: tokenizers.Tokenizer, where: str) -> Growth:
    """How much the tokenizer's normalizer may make of a text.

    Raises:
        TokenizerError: a part has a pattern that may take for ever, or grows text too much.
    """
    model = backend.model
    if getattr(model, "max_input_chars_per_word", 0) > LONGEST_WORD:
        raise TokenizerError(
            f"{where}: its tokenizer splits words of {model.max_input_chars_per_word} letters, and {LONGEST_WORD}"
            " is the most: correct max_input_chars_per_word in tokenizer.json"
        )
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if len(str(getattr(model, affix, None) or "")) > LONGEST_PREFIX:
            raise TokenizerError(
                f"{where}: its tokenizer's {affix} has more than {LONGEST_PREFIX} letters: correct tokenizer.json"
            )
    _check_around(_state(backend.post_processor), where)
    parts = (backend.normalizer, backend.pre_tokenizer, backend.decoder)
    first, *_ = [_growth(_state(part), where) for part in parts]
    return first


def check_added(growth: Growth, texts: Iterable[str], where: str) -> None:
    """Refuses added tokens of which the normalizer would make too much: it is run on each.

    Raises:
        TokenizerError: it would.
    """
    made = sum(growth.of(len(text)) for text in texts) if growth.factor > 1 else 0
    if made > LONGEST_RESULT:
        raise TokenizerError(
            f"{where}: its tokenizer may make {counted(made)} characters of the tokens that are added to it, and"
            f" {LONGEST_RESULT:,} is the most: correct tokenizer.json"
        )


def check_before(data: bytes, where: str) -> None:
    """``check`` of a ``tokenizer.json``'s normalizer, which the library runs on the added tokens as it reads the file.

    Raises:
        TokenizerError: it would grow text too much, or has a pattern that may take for ever.
    """
    try:
        content = _before_model(data)
        if not isinstance(content, dict):
            return
        growth = _growth(content.get("normalizer"), where)
    except (ValueError, RecursionError):
        return  # the library says what is wrong with it, and takes nothing as deep
    added = content.get("added_tokens")
    tokens = [token for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    check_added(growth, (str(token.get("content")) for token in tokens), where)


def _before_model(data: bytes) -> Any:
    """What stands in a file before its model, which is nearly all of it, and last where the library has written it."""
    at = data.find(b'"model"')
    hidden = data.find(rb"\u00", at) >= 0 and _ESCAPED.search(data, at) is not None  # a plain search is faster
    later = data.find(b'"normalizer"', at) >= 0 and _LATER.search(data, at) is not None
    if at > 0 and not hidden and not later:
        try:
            return json.loads(data[:at].rstrip().removesuffix(b",") + b"}")
        except ValueError:
            pass  # it is not the model's name that stands there
    return json.loads(data)


def is_local(backend: tokenizers.Tokenizer) -> bool:
    """Whether a token's text hangs on no more than the tokens beside it, so that text can be given out as ids come.

    A decoder that replaces in the whole text, or takes letters off its end, may change what was before; one that takes
    many off its start may have every token of a text to itself.
    """
    joined, stripped = False, 0
    for item in _items(_state(backend.decoder)):
        kind = item.get("type")
        if joined and (kind == "Replace" or (kind == "Strip" and item["stop"])):
            return False
        stripped += item["start"] if joined and kind == "Strip" else 0
        joined = joined or kind in ("Fuse", "ByteLevel")
    return stripped <= MOST_STRIPPED


def _growth(state: Any, where: str) -> Growth:
    """How much one part may make of a text."""
    growth = Growth()
    for item in _items(state):
        pattern = item.get("pattern")
        if isinstance(pattern, dict) and isinstance(pattern.get("Regex"), str):
            _check_pattern(pattern["Regex"], where)
        growth = _after(growth, item)
    told = "replacements"
    if growth.more > LONGEST_PREFIX:  # added tokens cut a text into pieces, and it stands before each
        growth, told = Growth(growth.factor * (1 + growth.more), growth.more), "prefixes and replacements"
    if growth.factor > MOST_GROWTH:
        raise TokenizerError(
            f"{where}: its tokenizer's {told} make up to {counted(growth.factor)} characters of one, and"
            f" {counted(MOST_GROWTH)} is the most: correct tokenizer.json"
        )
    return growth


def _after(growth: Growth, item: dict[str, Any]) -> Growth:
    kind = item.get("type")
    if kind == "Prepend":
        return Growth(growth.factor, growth.more + len(str(item.get("prepend", ""))))
    if kind == "Precompiled":
        longest = _longest_form(item.get("precompiled_charsmap"))
        return Growth(growth.factor * longest, growth.more) if longest > LONGEST_FORM else growth
    if kind != "Replace":
        return growth  # what is built in grows a character by no more than its own decomposition
    pattern, content = item.get("pattern"), str(item.get("content", ""))
    text = pattern.get("String") if isinstance(pattern, dict) else None
    # A pattern may match where there is nothing, before each character and at the end.
    factor = max(1.0, ceil(len(content) / len(text))) if isinstance(text, str) and text else 1.0 + len(content)
    return Growth(growth.factor * factor, growth.more + 1 if not text else growth.more)


def _longest_form(table: Any) -> int:
    """The bytes of the longest text that a table of SentencePiece has for a character: a trie, then texts."""
    try:
        data = base64.b64decode(table)
        return max(map(len, data[4 + int.from_bytes(data[:4], "little") :].split(b"\0")))
    except (TypeError, ValueError):
        return 0  # the library takes none of this kind


def _check_around(state: Any, where: str) -> None:
    """Refuses templates that add more tokens to a text than models have, or the text itself again and again."""
    special, copies = 0, 1
    for item in _items(state):
        if item.get("type") != "TemplateProcessing":
            continue
        known = item["special_tokens"]
        names = [piece["SpecialToken"]["id"] for piece in item["single"] if "SpecialToken" in piece]
        special += sum(len(known[name]["ids"]) for name in names if name in known)
        copies *= max(1, sum("Sequence" in piece for piece in item["single"]))
    if special > MOST_SPECIAL or copies > MOST_COPIES:
        what = f"adds more than {MOST_SPECIAL} tokens to a text" if copies <= MOST_COPIES else "repeats each text"
        raise TokenizerError(f"{where}: its tokenizer's post_processor {what}: correct tokenizer.json")


def _state(part: Any) -> Any:
    """A part of a tokenizer as JSON; what has none, and what is written in Python, as nothing."""
    try:
        return json.loads(part.__getstate__()) if part is not None else None
    except (TypeError, ValueError, RecursionError):
        return None


def _items(state: Any) -> Iterator[dict[str, Any]]:
    """The objects in it that name a type, the outer before the inner."""
    if isinstance(state, dict):
        if "type" in state:
            yield state
        for value in state.values():
            yield from _items(value)
    elif isinstance(state, list):
        for value in state:
            yield from _items(value)


def _check_pattern(pattern: str, where: str) -> None:
    fault = "is longer than patterns are" if len(pattern) > LONGEST_PATTERN else fault_of(pattern)
    if fault:
        raise TokenizerError(f"{where}: a pattern in its tokenizer {fault}: correct tokenizer.json")


def fault_of(pattern: str) -> str:
    """Why a regular expression may take more than quadratic time on some text, or nothing.

    It is tried from every place of a text. A repeated part that is followed by something that can fail is tried once
    more for each length it may have: with one such part after another the time is cubic, and where a repeated part is
    inside another it is exponential.
    """
    try:
        return _Pattern(pattern).fault()
    except (IndexError, RecursionError):
        return "is not closed, or too deep"


@dataclass(frozen=True)
class _Cost:
    """What a piece of a pattern costs: how many repeated parts can be tried again, whether it repeats or can fail."""

    retried: int = 0
    repeats: int = 0
    fails: bool = False


class _Pattern:
    """A reader of Oniguruma's syntax that looks for repeats alone."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._fault = ""

    def fault(self) -> str:
        cost = self._choice()
        if self._at < len(self._text):
            return "closes what it never opened"
        if self._fault:
            return self._fault
        return "repeats too many parts one after another, which can take for ever" if cost.retried > 1 else ""

    def _choice(self) -> _Cost:
        branches = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            branches.append(self._sequence())
        return _Cost(
            max(branch.retried for branch in branches),
            max(branch.repeats for branch in branches),
            all(branch.fails for branch in branches),
        )

    def _sequence(self) -> _Cost:
        retried = pending = 0  # repeats that something after them sends back, and those that nothing has yet
        repeats, fails = 0, False
        while self._peek() not in ("", "|", ")"):
            item = self._item()
            if item.fails:
                retried, pending = retried + pending, 0
            retried += item.retried
            pending += item.repeats - item.retried if item.repeats > item.retried else 0
            repeats += item.repeats
            fails = fails or item.fails
        return _Cost(retried, repeats, fails)

    def _item(self) -> _Cost:
        cost = self._atom()
        while (times := self._times()) is not None:
            low, unbounded, possessive = times
            if unbounded and cost.repeats:
                self._fault = self._fault or "repeats what repeats itself, which can take for ever"
            repeats = cost.repeats + unbounded
            cost = _Cost(cost.retried, repeats, cost.fails and low > 0)
            if possessive:
                cost = _Cost(cost.retried, 0, cost.fails)
        return cost

    def _times(self) -> tuple[int, bool, bool] | None:
        """The quantifier that stands here: its least count, whether it is endless, whether it keeps all."""
        text, start = self._text, self._at
        letter = self._peek()
        if letter and letter in "*+?":
            self._at += 1
            low, unbounded = int(letter == "+"), letter != "?"
        elif letter == "{":
            end = text.find("}", start)
            first, comma, last = text[start + 1 : end].partition(",")
            if end < 0 or not (first or last) or not (first + last).isdigit():
                return None
            self._at = end + 1
            low = int(first or 0)
            unbounded = bool(comma) and not last
            if not unbounded and int(last or first) > LONGEST_WORD:
                unbounded = True
        else:
            return None
        possessive = self._peek() == "+" and letter != "{"
        if possessive or self._peek() == "?":
            self._at += 1
        return low, unbounded, possessive

    def _atom(self) -> _Cost:
        letter = self._next()
        if letter == "(":
            return self._group()
        if letter == "[":
            self._set()
        elif letter == "\\":
            return self._escape()
        elif letter == "^":
            return _Cost(fails=True)
        return _Cost(fails=True)

    def _escape(self) -> _Cost:
        letter = self._next()
        if letter in "123456789kg":
            self._fault = self._fault or "refers to what it matched before, which can take for ever"
        if letter in "pP" and self._peek() == "{":
            self._at = self._text.index("}", self._at) + 1 if "}" in self._text[self._at :] else len(self._text)
        return _Cost(fails=True)

    def _set(self) -> None:
        if self._peek() == "^":
            self._at += 1
        if self._peek() == "]":
            self._at += 1
        while (letter := self._next()) != "]":
            if letter == "\\":
                self._next()
            elif letter == "[":
                if self._peek() == ":":
                    end = self._text.find(":]", self._at)
                    if end >= 0:
                        self._at = end + 2
                        continue
                self._set()

    def _group(self) -> _Cost:
        looks = closed = False
        if self._peek() == "?":
            self._at += 1
            kind = self._next()
            if kind == "#":
                self._at = self._text.index(")", self._at) + 1 if ")" in self._text[self._at :] else len(self._text)
                return _Cost()
            if kind == "<" and self._peek() not in ("=", "!"):
                while self._next() != ">":
                    pass
            elif kind == "<":
                self._at += 1
                looks = True
            elif kind in "=!":
                looks = True
            elif kind == ">":
                closed = True
            elif kind in "(~&R0123456789P":
                self._fault = self._fault or "calls itself or asks what it matched, which can take for ever"
            elif kind != ":":
                while self._peek() not in (":", ")", ""):
                    self._at += 1
                if self._next() == ")":
                    return _Cost()  # options for what follows
        cost = self._choice()
        if self._next() != ")":
            raise IndexError
        if looks:
            return _Cost(cost.retried, 0, fails=True)
        return _Cost(cost.retried, 0, cost.fails) if closed else cost

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        letter = self._text[self._at]
        self._at += 1
        return letter
