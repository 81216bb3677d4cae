"""Every error that bossa raises on purpose: one line that says what was wrong, where, and what to do.

And how text from outside is shown in it: nothing in it can move the cursor, colour, hide or reorder.
"""

from __future__ import annotations

import re
import unicodedata

_HARMLESS = "\n\t"
_ESCAPED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories with no look of their own: controls, marks that reorder text, halves of surrogate pairs, …"""
LONGEST = 1500
"""Letters of a message; of a longer one the middle is left out."""


def one_message(text: str) -> str:
    """A message of any origin as one line that can be shown."""
    return shortened(shown(re.sub(r"\s*\n\s*", " ", text.strip())), LONGEST)


class BossaError(Exception):
    """Root of all deliberate errors. The command line prints its message on one line and exits with 2.

    Messages name what files hold, so nothing in one acts on a terminal, and none is longer than a person reads.
    """

    def __str__(self) -> str:
        return one_message(super().__str__())


class ModelError(BossaError):
    """The model cannot be found, read or built from its config."""


class CompileError(BossaError):
    """The model cannot be compiled: an operator, a module or a setting is not supported."""


class ProgramError(BossaError):
    """A row program is malformed: it does not parse, or the verifier refuses it."""


class ToolchainError(BossaError):
    """No C++ compiler, or the compiler failed."""


class PefError(BossaError):
    """The program file is missing, damaged, of another format version, or built for another CPU."""


class WeightsError(BossaError):
    """Weights are missing, misshapen, unreadable or unsafe to read."""


class AdapterError(BossaError):
    """An adapter cannot be read, is of a kind that is not supported, or does not fit the program."""


class TokenizerError(BossaError):
    """There is no tokenizer, or it cannot be read."""


class DatasetError(BossaError):
    """The prompts cannot be read, or the predictions cannot be written."""


class TrainError(BossaError):
    """A training run cannot start, go on or be resumed."""


class StreamError(BossaError):
    """Standard input or output is needed, and was closed when the process started."""


class RequestError(BossaError):
    """A generation request asks for what the loaded program cannot do."""


class PromptError(RequestError, TokenizerError):
    """One prompt that the tokenizer or the chat template does not take; others may be taken."""


class RuntimeFailure(BossaError):
    """The native program failed to load or to run a step."""


class SambaError(BossaError):
    """A program that was written for SambaFlow uses a name of ``bossa.samba`` in a way that cannot work."""


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
