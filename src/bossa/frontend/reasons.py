"""Why something is refused: what transformers and torch say, in one line, and what another length would mend."""

from __future__ import annotations

from bossa.errors import CompileError, ModelError, shown

LONGEST = 240


class TooLong(CompileError):
    """The model may be compiled for shorter sequences alone; ``shorter`` is a length to try."""

    def __init__(self, message: str, shorter: int) -> None:
        super().__init__(message)
        self.shorter = shorter


class NoSuchAttention(ModelError):
    """The model's class has no such way of writing attention, which says nothing about the model."""


def one_line(error: BaseException, longest: int = LONGEST) -> str:
    """The text of an error, or its kind where it has none.

    A line that ends in a colon only announces the next, which has the reason: both are kept, as with the validation
    errors of transformers' configs. Of other texts the first line is the one that says it.
    """
    lines = [line.strip(" -\t") for line in str(error).splitlines() if line.strip(" -\t")]
    text = ""
    for line in lines or [type(error).__name__]:
        text = f"{text} {line}" if text else line
        if not line.endswith(":"):
            break
    text = shown(text.removesuffix(":"))
    return text if len(text) <= longest else text[: longest - 1] + "…"
