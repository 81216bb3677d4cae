"""A torch module becomes one that a session can trace, in place."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from bossa.errors import SambaError, kind_of
from bossa.samba.generation import let_steps_be_replaced_
from bossa.samba.indices import accept_short_indices_
from bossa.samba.nn.parameter import SambaParameter

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def from_torch_model_(model: ModuleT, parent_module_prefix: str | None = None) -> ModuleT:
    """Make every parameter of a module a `SambaParameter` with a name, and return the module.

    The module and its parameters stay the objects that they are, with their classes, attributes, memory layout and
    ties, so that an optimizer that holds the parameters already goes on holding them. Buffers are left alone. Called by
    hand the module takes int16 and int32 indices too, and transformers' ``generate`` may run a step of the program's.

    Args:
        model: Any module whose parameters have values.
        parent_module_prefix: Stands before the names of its parameters, for a module that is part of another.

    Raises:
        SambaError: It is not a module, or a parameter is of a class of its own or has no values yet.
    """
    if not isinstance(model, nn.Module):
        raise SambaError(f"samba.from_torch_model_ takes a torch.nn.Module, not {type(model).__name__}")
    before = f"{parent_module_prefix}__" if parent_module_prefix else ""
    for name, parameter in model.named_parameters():
        if type(parameter) is nn.Parameter:
            parameter.__class__ = SambaParameter
        elif not isinstance(parameter, SambaParameter):
            raise SambaError(
                f"samba.from_torch_model_: {name} is {kind_of(parameter)}; only torch.nn.Parameter is converted"
            )
        parameter.sn_name = before + name.replace(".", "__")
    accept_short_indices_(model)
    let_steps_be_replaced_(model)
    return model


from_torch_ = from_torch_model_
"""The older name."""
