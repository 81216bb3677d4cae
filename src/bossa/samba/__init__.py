"""The SambaFlow programming model: ``from bossa import samba`` in the place of ``from sambaflow import samba``."""

from __future__ import annotations

from bossa.samba import nn, optim
from bossa.samba.convert import from_torch_, from_torch_model_
from bossa.samba.nn.parameter import SambaParameter
from bossa.samba.tensor import SambaTensor, addmm, from_torch_tensor, randint, randn, to_torch

__all__ = [
    "SambaParameter",
    "SambaTensor",
    "addmm",
    "from_torch_",
    "from_torch_model_",
    "from_torch_tensor",
    "nn",
    "optim",
    "randint",
    "randn",
    "to_torch",
]
