"""What options of several commands share: value types, and the options that more than one command has."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from bossa.sampling.declaration import Declaration

Command = TypeVar("Command", bound=Callable[..., Any])

DEBUG = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of any error.")
INFERENCE = click.option(
    "--inference", is_flag=True, expose_value=False, help="Accepted for compatibility, without effect."
)

MOST_THREADS = 1024
THREADS = click.IntRange(1, MOST_THREADS)
SAMPLES = click.IntRange(1, 1024)
"""Of one prompt: they are all in flight together, as requests at least."""
SEQUENCES = click.IntRange(1, 2**31 - 1)
"""At once: as many as a manifest can say."""
MOST_BYTES = 1 << 60

_UNITS = {"": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power, _letter: 1024**_power}


class Size(click.ParamType[int]):
    """Bytes: ``2GB`` (powers of 1000), ``2GiB`` or ``2G`` (powers of 1024), or a plain number."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d{1,19}(?:\.\d{1,19})?)\s*([a-z]*)\s*", str(value).lower())
        unit = _UNITS.get(match[2].removesuffix("b") if match and match[2] == "b" else match[2]) if match else None
        if match is None or unit is None:
            self.fail(f"{value!r} is not a size: write it like 2GB, 512MiB or 1000000", param, ctx)
        return min(int(float(match[1]) * unit), MOST_BYTES)


class Text(click.ParamType[str]):
    """Text as UTF-8, whatever the locale says that arguments are."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            return text if text.isascii() else os.fsencode(text).decode("utf-8")
        except UnicodeEncodeError:
            return text  # it cannot have come as an argument
        except UnicodeDecodeError as error:
            self.fail(f"it is not UTF-8: byte {error.start + 1} is 0x{error.object[error.start]:02x}", param, ctx)


class CountOrAll(click.ParamType["int | None"]):
    """A count, or ``all`` (None)."""

    name = "count|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        text = str(value).lower()
        if text == "all":
            return None
        if not re.fullmatch(r"\d{1,18}", text):
            self.fail(f"{value!r} is neither a count nor 'all'", param, ctx)
        return int(text)


class Cpus(click.ParamType["list[int]"]):
    """Numbers of CPUs: ``0-3,8`` are five."""

    name = "cpus"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        cpus: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part)
            if match is None or (match[2] and int(match[2]) < int(match[1])):
                self.fail(f"{value!r} is not a list of CPUs: write it like 0-3,8", param, ctx)
            cpus += range(int(match[1]), int(match[2] or match[1]) + 1)
            if len(cpus) > MOST_THREADS:
                self.fail(f"{value!r} names more than {MOST_THREADS} CPUs", param, ctx)
        return cpus


class Counts(click.ParamType[tuple[int, ...]]):
    """Counts from 1, with commas between them."""

    name = "count,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(re.fullmatch(r"\d{1,9}", part) and int(part) for part in parts):
            self.fail(f"{value!r} is not a list of counts: write it like 1,8,32", param, ctx)
        return tuple(dict.fromkeys(int(part) for part in parts))


class SequenceLength(click.ParamType["int | None"]):
    """A count of tokens, or ``-1`` (None) for the most that there can be."""

    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        text = str(value)
        if text == "-1":
            return None
        if not re.fullmatch(r"\d{1,18}", text) or int(text) == 0:
            self.fail(f"{value!r} is not a number of tokens: give 1 or more, or -1 for the most", param, ctx)
        return int(text)


def together(*several: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Options as one, in the order in which help shows them."""

    def add(command: Command) -> Command:
        for option in reversed(several):
            command = option(command)
        return command

    return add


def max_seq_length(what: str) -> Callable[[Command], Command]:
    return click.option(
        "--max_seq_length",
        type=SequenceLength(),
        default="-1",
        show_default=True,
        help=f"The most tokens of a sequence, prompt and completion together; -1: {what}.",
    )


def cache_dir() -> Callable[[Command], Command]:
    return click.option(
        "--cache_dir", type=click.Path(path_type=Path), help="Where models from the Hugging Face hub are kept."
    )


def sampling(*names: str, types: Mapping[str, click.ParamType[Any]] | None = None) -> Callable[[Command], Command]:
    """The options of these parameters of sampling, made from their declarations; ``types`` of values of other kinds."""
    from bossa.sampling.parameters import PARAMETERS  # which one command needs

    def add(command: Command) -> Command:
        for name in reversed(names):
            command = _sampling_option(name, PARAMETERS[name], (types or {}).get(name))(command)
        return command

    return add


def _sampling_option(
    name: str, declared: Declaration, kind: click.ParamType[Any] | None
) -> Callable[[Command], Command]:
    option = declared.option
    assert option is not None, f"{name} is declared without an option"
    more: dict[str, Any] = {}
    if option.default:
        more |= {"default": declared.neutral, "show_default": True}
    if option.bare is not None:
        more |= {"is_flag": False, "flag_value": option.bare}
    return click.option(
        f"--{option.name or name.replace('_', '-')}",
        name,
        type=kind or _type_of(declared.check),
        metavar=option.metavar,
        multiple=option.several,
        help=option.help,
        **more,
    )


def _type_of(check: object) -> click.ParamType[Any]:
    """The type of an option's value: the numbers that a check takes, or text."""
    from bossa.sampling.declaration import Range

    if not isinstance(check, Range):
        return Text()
    if check.whole:
        return click.IntRange(int(check.low), None if check.high is None else int(check.high))
    if check.above is not None:
        return click.FloatRange(check.above, min_open=True)
    return click.FloatRange(check.low, check.high)
