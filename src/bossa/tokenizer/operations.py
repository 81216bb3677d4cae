"""What a chat template may do to values, and the size of what comes of it, known before it is done.

Only what has a bound here can be called at all: methods of plain values, operators, filters, and the two ways to
format a text. Filters and methods whose results are no larger than a small multiple of what they are given need no
estimate: what they make is paid for when it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bossa.tokenizer.budget import BITS, STEP, Budget, Excess

LONGEST_LAYOUT = 32
"""Characters of an indentation or a separator of JSON."""
WIDEST = 9999
"""The greatest width or precision in a text to be formatted."""
LONGEST_FLOWED = 20_000
"""Characters that are wrapped at a width, or cleared of tags, which takes their square."""
ESCAPED = 6
"""How much longer a character becomes when it is escaped."""

METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "capitalize casefold center count encode endswith expandtabs find format format_map index isalnum isalpha"
        " isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower"
        " lstrip partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split"
        " splitlines startswith strip swapcase title upper zfill".split()
    ),
    bytes: frozenset(["decode"]),
    dict: frozenset("copy get items keys values".split()),
    list: frozenset("copy count index".split()),
    tuple: frozenset("count index".split()),
    range: frozenset("count index".split()),
    int: frozenset("bit_length is_integer".split()),
    float: frozenset(["is_integer"]),
}
"""The methods of plain values."""


def check_method(budget: Budget, owner: Any, name: str, values: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Make sure that a method of a plain value may be called.

    Raises:
        Excess: it may not, or makes too much.
    """
    allowed: frozenset[str] = next((names for kind, names in METHODS.items() if isinstance(owner, kind)), frozenset())
    if name not in allowed:
        raise Excess(f"it calls {name} of a {type(owner).__name__}, which templates may not")
    budget.seen(owner)
    for value in (*values, *named.values()):
        budget.seen(value)
    if isinstance(owner, str):
        _check_text(budget, owner, name, values, named)


def _check_text(budget: Budget, text: str, name: str, values: tuple[Any, ...], named: dict[str, Any]) -> None:
    first = values[0] if values else None
    if name in ("center", "ljust", "rjust", "zfill"):
        budget.room(_whole(first))
    elif name == "expandtabs":
        budget.room(len(text) * max(1, _whole(named.get("tabsize", 8 if first is None else first))))
    elif name == "replace" and len(values) >= 2:
        check_replace(budget, text, first, values[1])
    elif name == "join":
        check_join(budget, first, text)
    elif name in ("strip", "lstrip", "rstrip"):
        check_strip(budget, text, first)


def check_replace(budget: Budget, text: Any, old: Any, new: Any, _count: Any = None) -> None:
    """``text.replace(old, new)``."""
    text, old, new = str(text), str(old), str(new)
    found = text.count(old)
    budget.room(len(text) + found * ESCAPED * len(new))


def check_join(budget: Budget, values: Any, between: Any) -> None:
    """``between.join(values)``."""
    size = budget.size(values)
    number = len(values) if isinstance(values, str) else size.items
    budget.room(size.weight + number * len(str(between)))


def check_strip(budget: Budget, text: Any, letters: Any = None) -> None:
    """``text.strip(letters)``, which looks for each of its letters among those."""
    if isinstance(letters, str):
        budget.charge(len(str(text)) * len(letters) >> 6)


def check_operator(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """Make sure that an operator's result is not too large.

    Raises:
        Excess: it is.
    """
    if operator == "*":
        if isinstance(left, int) and isinstance(right, int):
            _bits(left.bit_length() + right.bit_length())
        elif isinstance(left, int) or isinstance(right, int):
            times, value = (left, right) if isinstance(left, int) else (right, left)
            budget.room(max(0, times) * (len(value) if isinstance(value, str) else budget.size(value).weight))
    elif operator == "**":
        if isinstance(left, int) and isinstance(right, int) and right > 0:
            _bits(left.bit_length() * right if abs(left) > 1 else 1)
    elif operator == "+":
        budget.room(budget.size(left).weight + budget.size(right).weight)
    elif operator == "%" and isinstance(left, str | bytes):
        check_printf(budget, left if isinstance(left, str) else left.decode("latin-1"), right)


def check_printf(budget: Budget, form: Any, values: Any) -> None:
    """``form % values``: every width is small, and every part of ``form`` may show all of the values."""
    form = str(form)
    at, shown, widths = 0, 0, 0
    while (at := form.find("%", at)) >= 0:
        at += 1
        if form[at : at + 1] == "(":
            depth = 1
            at += 1
            while depth and at < len(form):
                depth += {"(": 1, ")": -1}.get(form[at], 0)
                at += 1
        digits = ""
        while at < len(form) and form[at] in "#0- +*.0123456789hlL":
            if form[at] == "*":
                raise Excess("it formats a text to a width that is a value")
            digits = digits + form[at] if form[at].isdigit() else " " + digits if digits[:1] != " " else digits
            at += 1
            if any(len(number) > len(str(WIDEST)) for number in digits.split()):
                raise Excess(f"it formats a text to a width of more than {WIDEST:,}")
        shown += 1
        widths += 2 * WIDEST if digits.strip() else 0
        at += 1
    budget.room(len(form) + widths + shown * budget.size(values).weight)


def check_field(spec: str) -> None:
    """A format specification of ``str.format``."""
    digits = ""
    for letter in spec:
        digits = digits + letter if letter.isdigit() else ""
        if len(digits) > len(str(WIDEST)):
            raise Excess(f"it formats a text to a width of more than {WIDEST:,}")


def _center(budget: Budget, _value: Any, width: Any = 80) -> None:
    budget.room(_whole(width))


def _indent(budget: Budget, value: Any, width: Any = 4, *_rest: Any, **_named: Any) -> None:
    text = str(value)
    unit = len(width) if isinstance(width, str) else _whole(width)
    budget.room(len(text) + (text.count("\n") + len(text.splitlines()) + 1) * unit)


def _batch(budget: Budget, _value: Any, linecount: Any, fill_with: Any = None) -> None:
    budget.room(_whole(linecount) * (1 if fill_with is None else budget.size(fill_with).weight))


def _slice(budget: Budget, _value: Any, slices: Any, fill_with: Any = None) -> None:
    budget.room(_whole(slices) * (1 if fill_with is None else budget.size(fill_with).weight))
    budget.charge(_whole(slices))


def _round(_budget: Budget, _value: Any, precision: Any = 0, *_rest: Any, **_named: Any) -> None:
    if abs(_whole(precision)) > LONGEST_LAYOUT:
        raise Excess(f"it rounds to more than {LONGEST_LAYOUT} digits")


def _join(budget: Budget, value: Any, d: Any = "", _attribute: Any = None) -> None:
    check_join(budget, value, d)


def _truncate(
    budget: Budget, value: Any, _length: Any = 255, _killwords: Any = False, end: Any = "...", *_: Any
) -> None:
    budget.room(len(str(value)) + len(str(end)))


def _wordwrap(budget: Budget, value: Any, width: Any = 79, _long: Any = True, wrapstring: Any = None, *_: Any) -> None:
    _flowed(budget, value)
    budget.room((len(str(value)) + 1) * (1 + len(str(wrapstring or ""))))


def _flowed(_budget: Budget, value: Any) -> None:
    if len(str(value)) > LONGEST_FLOWED:
        raise Excess(f"it wraps or clears a text of more than {LONGEST_FLOWED:,} characters")


def _format(budget: Budget, value: Any, *values: Any, **named: Any) -> None:
    check_printf(budget, value, values or named)


def _tojson(
    budget: Budget,
    value: Any,
    _ensure_ascii: Any = False,
    indent: Any = None,
    separators: Any = None,
    _sort_keys: Any = False,
    **_named: Any,
) -> None:
    layout = [indent, *separators] if isinstance(separators, list | tuple) else [indent]
    if any((len(part) if isinstance(part, str) else _whole(part or 0)) > LONGEST_LAYOUT for part in layout):
        raise Excess(f"it lays out JSON with more than {LONGEST_LAYOUT} characters in one place")
    if indent is not None:
        size = budget.size(value)
        budget.room(size.items * size.depth * (len(indent) if isinstance(indent, str) else _whole(indent)))


def _sorted(budget: Budget, value: Any, *_rest: Any, **_named: Any) -> None:
    budget.charge(budget.size(value).items * STEP)


ESTIMATES: dict[str, Callable[..., None]] = {
    "batch": _batch,
    "center": _center,
    "dictsort": _sorted,
    "format": _format,
    "groupby": _sorted,
    "indent": _indent,
    "join": _join,
    "replace": check_replace,
    "round": _round,
    "slice": _slice,
    "sort": _sorted,
    "striptags": _flowed,
    "tojson": _tojson,
    "trim": check_strip,
    "truncate": _truncate,
    "unique": _sorted,
    "wordwrap": _wordwrap,
}
"""Filters whose results may be much larger than what they are given, or take more than linear time."""

FILTERS = frozenset(ESTIMATES) | frozenset(
    "abs attr capitalize count d default e escape filesizeformat first float forceescape int items last length list"
    " lower map max min random reject rejectattr reverse safe select selectattr string sum title upper urlencode"
    " wordcount xmlattr".split()
)
"""The filters of jinja2 that templates may use; what ``sum`` adds goes through the operator."""


def _whole(value: Any) -> int:
    """A size that a template gives; what is no number is for the callee to refuse."""
    return value if isinstance(value, int) else 0


def _bits(number: int) -> None:
    if number > BITS:
        raise Excess(f"it makes a number of more than {BITS:,} bits")
