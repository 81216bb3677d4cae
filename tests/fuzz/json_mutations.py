"""Mutations of JSON: values changed for odd ones, keys renamed, repeated and taken out, depth, length, raw text."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from fuzz.mutations import odd_number, odd_text


class Raw(str):
    """Text that is written as it is, whether it is JSON or not."""


class Pairs(list[tuple[str, Any]]):
    """An object that may have a key twice."""


RAW = tuple(
    map(
        Raw, ("NaN", "Infinity", "-Infinity", "1e400", "-0.0", "1E5", "01", "1.", "'a'", '"\\ud800"', "tru", "", "/**/")
    )
)
DEEP = (20, 200, 2_000, 100_000)


def mutate_json(chance: random.Random, text: str) -> str:
    """The JSON text with a few of its values changed; text that is no JSON is cut somewhere."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text[: chance.randrange(len(text) + 1)]
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        value = changed(chance, value)
    return written(value)


def changed(chance: random.Random, value: Any) -> Any:
    """The value with one place in it changed, deep places as likely as others."""
    places = [place for place in _places(value) if place]
    if not places or chance.random() < 0.02:
        return _odd(chance, value)
    place = chance.choice(places)
    return _at(chance, value, place)


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, ...]]:
    yield ()
    if depth > 20:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            for place in _places(item, depth + 1):
                yield (key, *place)
    elif isinstance(value, list) and not isinstance(value, Pairs):
        for number, item in enumerate(value[:200]):
            for place in _places(item, depth + 1):
                yield (number, *place)


def _at(chance: random.Random, value: Any, place: tuple[Any, ...]) -> Any:
    key, *rest = place
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    if rest:
        copy[key] = _at(chance, copy[key], tuple(rest))
        return copy
    match chance.randrange(8):
        case 0:
            del copy[key]
        case 1 if isinstance(copy, dict):
            return Pairs([*copy.items(), (key, _odd(chance, copy[key]) if chance.random() < 0.7 else copy[key])])
        case 1:
            copy.insert(key, copy[key])
        case 2 if isinstance(copy, dict):
            renamed = odd_text(chance, key)
            return {renamed if name == key else name: item for name, item in copy.items()}
        case 3:
            other = chance.choice(list(copy)) if isinstance(copy, dict) else chance.randrange(len(copy))
            copy[key], copy[other] = copy[other], copy[key]
        case 4 if isinstance(copy, dict):
            copy[odd_text(chance, key)] = _odd(chance, copy[key])
        case _:
            copy[key] = _odd(chance, copy[key])
    return copy


def _odd(chance: random.Random, value: Any) -> Any:
    """A value in place of this one: of its own type mostly."""
    if chance.random() < 0.7:
        match value:
            case bool():
                return not value
            case int():
                return odd_number(chance, value)
            case float():
                return chance.choice((-value, value * 1e30, 0.0, 1e-300, 1e308, int(value) if abs(value) < 1e9 else 0))
            case str():
                return odd_text(chance, value)
            case list() if value:
                many = value * max(2, min(2000 // len(value), 50_000 // len(str(value))))
                one = [value[0]] * len(value)
                return chance.choice((value[::-1], [], value * 2, many, value[1:], value[:1], [value], one, value[0]))
            case dict() if value:
                key = chance.choice(list(value))
                return chance.choice(({}, [value], value[key], {**value, "x": 1}, {key: value}, list(value)))
    others = (None, True, False, 0, 1, -1, 0.5, "", "a", [], {}, [None], {"a": 1}, [[]], str(value)[:99], [value])
    match chance.randrange(4):
        case 0:
            return chance.choice(RAW)
        case 1:
            deep = chance.choice(DEEP)
            opened, closed = chance.choice((("[", "]"), ('{"a":', "}")))
            return Raw(opened * deep + "1" + closed * deep)
        case _:
            return chance.choice((*others, odd_number(chance, 1), odd_text(chance)))


def written(value: Any) -> str:
    """The value as JSON, with what `Raw` and `Pairs` hold in it."""
    match value:
        case Raw():
            return str(value)
        case Pairs():
            return "{" + ", ".join(f"{json.dumps(key)}: {written(item)}" for key, item in value) + "}"
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)}: {written(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(written(item) for item in value) + "]"
        case _:
            return json.dumps(value)
