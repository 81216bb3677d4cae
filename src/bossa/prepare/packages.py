"""Packages that only preparing data needs."""

from __future__ import annotations

import importlib
from typing import Any

from bossa.errors import DatasetError


def need(module: str) -> Any:
    """A module of one of the packages.

    Raises:
        DatasetError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise DatasetError(f"{package} is not installed, which this needs: pip install 'bossa[train]'") from None
