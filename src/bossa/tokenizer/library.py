"""The one door to the tokenizers library: what it raises becomes an error of ours, its panics included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from bossa.errors import BossaError, shown

P = ParamSpec("P")
T = TypeVar("T")
LONGEST_REASON = 120


def call(problem: Callable[[str], BossaError], function: Callable[P, T], *values: P.args, **named: P.kwargs) -> T:
    """What ``function`` of the library returns.

    Raises:
        BossaError: what ``problem`` makes of the reason, where the library raised or panicked. A panic has printed a
            line of its own on standard error before: its hook is the library's, and nothing here may replace it.
    """
    try:
        return function(*values, **named)
    except Exception as error:  # the library raises plain Exception
        raise problem(reason(error)) from None
    except BaseException as error:
        if not is_panic(error):
            raise
        raise problem(reason(error)) from None


def is_panic(error: BaseException) -> bool:
    """Whether it is what Rust code that gave up raises, which is no ``Exception`` and has no public class."""
    return type(error).__name__ == "PanicException"


def reason(error: BaseException) -> str:
    """The first line of what an error says."""
    lines: list[Any] = str(error).splitlines()
    return shown(lines[0])[:LONGEST_REASON] if lines else type(error).__name__
