"""What a program writes into its PEF about itself."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from torch import nn

from bossa.version import __version__


def get_pefmeta(args: Namespace, model: nn.Module) -> dict[str, Any]:
    """The arguments, the model's class and size and our version, as values that JSON has.

    Args:
        args: What `parse_app_args` gave.
        model: The model to be compiled.
    """
    return {
        "arguments": {name: _plain(value) for name, value in sorted(vars(args).items())},
        "model": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "version": __version__,
    }


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return str(value)
