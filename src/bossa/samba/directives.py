"""Hints that a program gives to the compiler."""

from __future__ import annotations

from torch import nn

from bossa.errors import SambaError
from bossa.samba.logging import samba_logger


def op_fusion(module: nn.Module, name: str) -> nn.Module:
    """Say that a module is to be compiled as one kernel of this name, and return it.

    A hint: what is fused here is decided for the whole graph, and the module stays as it is.

    Raises:
        SambaError: It is not a module.
    """
    if not isinstance(module, nn.Module):
        raise SambaError(f"directives.op_fusion takes a torch.nn.Module, not {type(module).__name__}")
    samba_logger.info(f"op_fusion {name}: operators are fused over the whole graph, by its shapes", log_limit=1)
    return module
