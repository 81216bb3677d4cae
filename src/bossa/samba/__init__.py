"""The SambaFlow programming model: ``from bossa import samba`` in the place of ``from sambaflow import samba``."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bossa.samba import directives, env, nn, optim, utils
from bossa.samba.convert import from_torch_, from_torch_model_
from bossa.samba.nn.parameter import SambaParameter
from bossa.samba.seed import seed_from_environment
from bossa.samba.tensor import SambaTensor, addmm, from_torch, from_torch_tensor, randint, randn, to_torch
from bossa.sambaflow.missing import NoSuchAttribute

if TYPE_CHECKING:
    session: Any
    SambaSession: Any

__all__ = [
    "SambaParameter",
    "SambaSession",
    "SambaTensor",
    "addmm",
    "directives",
    "env",
    "from_torch",
    "from_torch_",
    "from_torch_model_",
    "from_torch_tensor",
    "nn",
    "optim",
    "randint",
    "randn",
    "session",
    "to_torch",
    "utils",
]


class _Samba(ModuleType):
    """This package, whose ``session`` is the session itself, also once the module of that name has been imported."""

    @property
    def session(self) -> Any:
        return import_module("bossa.samba.session").session

    @session.setter
    def session(self, module: ModuleType) -> None:
        """The import system's: it sets each module as an attribute of its package."""

    def __getattr__(self, name: str) -> Any:
        raise NoSuchAttribute("samba", name)

    @property
    def SambaSession(self) -> Any:  # noqa: N802  the class
        return import_module("bossa.samba.session").SambaSession


sys.modules[__name__].__class__ = _Samba

seed_from_environment()
