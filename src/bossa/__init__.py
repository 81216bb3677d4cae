"""Bossa: compile a causal language model once, run it from one file.

``compile`` makes a `Pef` of a model, ``load`` makes a `LanguageModel` of a PEF. Importing this package loads neither
torch nor a tokenizer; what is used is loaded when it is used.
"""

from __future__ import annotations

from bossa.errors import BossaError
from bossa.version import __version__

TYPE_CHECKING = False  # a name that type checkers know; importing typing takes longer than all else here
if TYPE_CHECKING:
    from typing import Any

    from bossa.compiler import compile  # noqa: A004  the verb people look for, always used as bossa.compile
    from bossa.engine.request import Completion
    from bossa.language_model import LanguageModel
    from bossa.loading import load
    from bossa.pef import Pef

_HOMES = {
    "compile": "bossa.compiler",
    "load": "bossa.loading",
    "Pef": "bossa.pef",
    "LanguageModel": "bossa.language_model",
    "Completion": "bossa.engine.request",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bossa' has no attribute {name!r}")


__all__ = ["BossaError", "Completion", "LanguageModel", "Pef", "__version__", "compile", "load"]
