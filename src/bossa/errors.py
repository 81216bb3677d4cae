"""Every error that bossa raises on purpose: one line that says what was wrong, where, and what to do."""

from __future__ import annotations

import re

from bossa.checks.shown import shortened, shown

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


class TokenizerError(BossaError):
    """There is no tokenizer, or it cannot be read."""


class DatasetError(BossaError):
    """The prompts cannot be read, or the predictions cannot be written."""


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
