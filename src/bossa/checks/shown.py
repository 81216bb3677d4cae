"""Text from outside as it may be shown to a person: nothing in it can move the cursor, colour, hide or reorder."""

from __future__ import annotations

import unicodedata

_HARMLESS = "\n\t"
_ESCAPED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories with no look of their own: controls, marks that reorder text, halves of surrogate pairs, …"""


def shown(text: object, *, lines: bool = False) -> str:
    r"""The text with what a terminal would act on written as ``\x1b`` or ``\u202e``.

    Args:
        text: anything; what is no string is turned into one.
        lines: leave line breaks and tabs as they are, for text of several lines.
    """
    whole = str(text)
    if whole.isascii() and whole.isprintable():
        return whole
    return "".join(
        letter if (lines and letter in _HARMLESS) or unicodedata.category(letter) not in _ESCAPED else _escape(letter)
        for letter in readable(whole)
    )


def counted(number: float) -> str:
    """A count as a whole number; one that is too long to be read so, by its size alone."""
    return f"{number:,.0f}" if number < 1e15 else f"{number:.3g}"


def kind_of(value: object) -> str:
    """The type of a value, as in "an int"."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in tuple('aeiou') else 'a'} {name}"


def shortened(text: str, most: int) -> str:
    """The text, without its middle where it is longer."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"


def readable(text: str) -> str:
    """The text, with UTF-8 in it that Python took for bytes (an argument in another locale) read as what it is."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text  # other halves of surrogate pairs


def _escape(letter: str) -> str:
    code = ord(letter)
    if letter in "\n\r\t":
        return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}[letter]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
