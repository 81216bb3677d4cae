"""Where a program is."""

from __future__ import annotations

import os


def get_file_dir(path: str | os.PathLike[str]) -> str:
    """The absolute path of the directory of a file: ``get_file_dir(__file__)``."""
    return os.path.dirname(os.path.abspath(path))
