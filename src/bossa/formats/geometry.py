"""How many bytes numbers take in panels of 16 outputs, and in tables. docs/pef.md has the layouts."""

from __future__ import annotations

from bossa.formats.precision import GROUP_BITS, LADDER_BITS, DType

PANEL = 16
"""Outputs side by side in one panel of a packed matrix: the 16 logical lanes of the kernels."""
ALIGNMENT = 64
"""Bytes to which every slot is aligned inside the packed blob."""
BLOCK = 32
"""Steps of k that share a scale in 8-bit panels."""
GROUP = 32
"""Steps of k that share a scale and a minimum in panels of 6-bit and 4-bit weights."""


def panel_bytes(dtype: DType, k: int) -> int:
    """Bytes of one panel, 16 outputs of ``k`` steps; docs/pef.md has the formats."""
    if dtype == "int8":
        return 4 * PANEL + -(-k // (4 * BLOCK)) * ALIGNMENT + -(-k // 4) * 4 * PANEL
    if (bits := GROUP_BITS.get(dtype) or LADDER_BITS.get(dtype)) is not None:
        groups, scales = -(-k // GROUP), 2 if dtype in GROUP_BITS else 1
        return scales * 4 * PANEL + (groups + groups % 2) * 2 * PANEL + groups * GROUP * PANEL * bits // 8
    return (4 if dtype == "fp32" else 2) * PANEL * k


def table_scale_bytes(height: int) -> int:
    """Bytes of the scales before an 8-bit table of ``height`` rows."""
    return -(-4 * height // ALIGNMENT) * ALIGNMENT
