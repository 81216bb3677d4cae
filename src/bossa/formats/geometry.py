"""Sizes that every format shares. docs/pef.md has the layouts."""

PANEL = 16
"""Outputs side by side in one panel of a packed matrix: the 16 logical lanes of the kernels."""
ALIGNMENT = 64
"""Bytes to which every slot is aligned inside the packed blob."""


def round_up(n: int, multiple: int) -> int:
    """The least multiple that is not less."""
    return -(-n // multiple) * multiple
