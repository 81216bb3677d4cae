"""What kind of runtime a program has."""

from __future__ import annotations


def use_mock_samba_runtime() -> bool:
    """Whether sessions only pretend to compute: never here. Programs loosen their checks where it is so."""
    return False
