"""How a parameter of sampling is declared: what may be its value, what it means, and how the command line offers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields
from math import inf
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from bossa.checks.arguments import is_whole, iterated, plain, real, refuse, token_ids, whole
from bossa.errors import RequestError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
Check = Callable[[str, object], Any]
"""From a parameter's name and what was given for it to its value; a RequestError where it cannot be one."""

Kind = Literal["length", "draw", "filter", "processor", "constraint", "text", "result"]
"""What it is about: when a completion ends, how a token is drawn, which tokens may be, the logits before that, what the
whole completion must be, the text that ends a completion, or what comes with the result."""

_METADATA = "declaration"


class Range:
    """Numbers that a parameter may be. No dataclass, whose making would take its time at every start.

    Attributes:
        whole: whether they are whole.
        low, high: the least and the greatest.
        expected: in words, where the range alone does not say it.
        above: what a person would say they are above, where ``low`` is a bound of the arithmetic alone.
        or_none: whether it may be None too.
    """

    def __init__(
        self,
        whole: bool,
        low: float,
        high: float | None,
        expected: str,
        above: float | None = None,
        or_none: bool = False,
    ) -> None:
        self.whole, self.low, self.high = whole, low, high
        self.expected, self.above, self.or_none = expected, above, or_none

    def __call__(self, name: str, value: object) -> Any:
        if value is None and self.or_none:
            return None
        check: Callable[..., Any] = whole if self.whole else real
        return check(name, value, self.low, self.high, expected=self.expected)


def count(low: int = 0, high: int | None = None, expected: str = "", *, or_none: bool = False) -> Range:
    """Whole numbers in a range."""
    return Range(True, low, high, expected, or_none=or_none)


def number(
    low: float = 0,
    high: float | None = None,
    expected: str = "",
    *,
    above: float | None = None,
    or_none: bool = False,
) -> Range:
    """Finite numbers in a range."""
    return Range(False, low, high, expected, above, or_none)


def ids(name: str, value: object) -> tuple[int, ...]:
    """Token ids."""
    return tuple(token_ids(name, value))


def one_or_more_ids(name: str, value: object) -> tuple[int, ...]:
    """A token id, or several; None for none."""
    return () if value is None else tuple(token_ids(name, [value] if is_whole(plain(value)) else value))


def sequences(name: str, value: object) -> tuple[tuple[int, ...], ...]:
    """Lists of token ids, none of them empty."""
    expected = "a list of lists of token ids, none of them empty"
    found = tuple(tuple(token_ids(name, each, expected=expected)) for each in iterated(name, value, expected))
    if not all(found):
        refuse(name, expected, value)
    return found


def biases(name: str, value: object) -> tuple[tuple[tuple[int, ...], float], ...]:
    """A bias for each of some lists of token ids: pairs in a list, or a dict with tuples as its keys."""
    expected = "pairs of a list of token ids and a number up to 1e30, or a dict from tuples of token ids to numbers"
    pairs = value.items() if isinstance(value, Mapping) else iterated(name, value, expected)
    found: dict[tuple[int, ...], float] = {}
    for pair in pairs:
        parts = list(iterated(name, pair, expected))
        if len(parts) != 2:
            refuse(name, expected, pair)
        tokens = tuple(token_ids(name, parts[0], expected=expected))
        if not tokens:
            refuse(name, expected, pair)
        bias = parts[1]
        found[tokens] = (
            bias if isinstance(bias, float) and bias == -inf else real(name, bias, -1e30, 1e30, expected=expected)
        )
    return tuple(found.items())


def decay(name: str, value: object) -> tuple[int, float] | None:
    """After how many new tokens a growth begins, and its factor a token; None for none."""
    if value is None:
        return None
    expected = "a pair of a count of tokens and a factor above 0, or None"
    parts = list(iterated(name, value, expected))
    if len(parts) != 2:
        refuse(name, expected, value)
    return whole(name, parts[0], expected=expected), real(name, parts[1], 5e-324, expected=expected)


def functions(name: str, value: object) -> tuple[Any, ...]:
    """What can be called, in a list."""
    expected = "a list of functions of the token ids so far and a row of logits"
    found = tuple(iterated(name, value, expected))
    if not all(map(callable, found)):
        refuse(name, expected, next(each for each in found if not callable(each)))
    return found


def distinct_texts(name: str, value: object) -> tuple[str, ...]:
    """Texts that are not empty, each of them once."""
    expected = "a list of texts that are not empty, each of them once"
    if isinstance(value, str):
        refuse(name, expected, value)
    found = tuple(iterated(name, value, expected))
    for place, each in enumerate(found):
        if not isinstance(each, str) or not each or each in found[:place]:
            refuse(name, expected, each)
    return found


def pattern(name: str, value: object) -> str | None:
    """A regular expression that is not empty, which whoever matches it reads; None for none."""
    if value is not None and not (isinstance(value, str) and value):
        refuse(name, "a regular expression, or None", value)
    return value


def schema(name: str, value: object) -> str | None:
    """A JSON schema, as its JSON text or as a dict, in one form; None for none."""
    if value is None:
        return None
    import json  # which few ask for

    expected = "a JSON schema: a dict, or the JSON text of an object"
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{name} must be {expected}, and is no JSON: {error}") from error
    if not isinstance(value, Mapping):
        refuse(name, expected, value)
    try:
        return json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"{name} must be {expected}, and cannot be written as JSON: {error}") from error


class Option(NamedTuple):
    """How the command line offers a parameter.

    Attributes:
        help: in a sentence.
        name: without its dashes, where it is not the parameter's own.
        metavar: what stands for its value, where its type does not say enough.
        several: it may be repeated.
        default: the value is the parameter's own where the option is not given, and shown so.
        bare: the value where it is given without one; None: it needs one.
    """

    help: str
    name: str = ""
    metavar: str | None = None
    several: bool = False
    default: bool = False
    bare: int | None = None


class Declaration(NamedTuple):
    """A parameter, but for its name and type, which are those of its field.

    Attributes:
        neutral: its value where nothing is asked for.
        check: what may be its value.
        kind: what it is about.
        meaning: in a phrase.
        option: None where the command line lacks it.
        tokens: the token ids that a value names; None: it names none.
    """

    neutral: Any
    check: Check
    kind: Kind
    meaning: str
    option: Option | None = None
    tokens: Callable[[Any], Iterable[int]] | None = None


def parameter(
    neutral: T,
    check: Check,
    kind: Kind,
    meaning: str,
    option: Option | None = None,
    tokens: Callable[[Any], Iterable[int]] | None = None,
) -> T:
    """A field of a dataclass that declares a parameter, as ``Declaration`` describes it."""
    return field(default=neutral, metadata={_METADATA: Declaration(neutral, check, kind, meaning, option, tokens)})


def declared_in(kind: type[DataclassInstance]) -> dict[str, Declaration]:
    """The parameters that a dataclass declares by name, in their order."""
    return {each.name: each.metadata[_METADATA] for each in fields(kind)}
