"""The words for how numbers are stored: what a program is compiled for, and what its weights and its cache may be."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "bf16", "int8", "int4", "int4-a16", "int4-a8"]
KvPrecision = Literal["fp32", "bf16", "int8"]
DType = Literal["fp32", "bf16", "int8", "int6", "int4", "int6-a16", "int4-a16", "int6-a8", "int4-a8"]
Arithmetic = Literal["fp32", "int16", "int8"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8", "int4", "int4-a16", "int4-a8")
"""What a program may be compiled for; some of its weights may be stored otherwise."""
KV_PRECISIONS: tuple[KvPrecision, ...] = ("fp32", "bf16", "int8")
"""How keys and values may be stored."""
DTYPES: tuple[DType, ...] = ("fp32", "bf16", "int8", "int6", "int4", "int6-a16", "int4-a16", "int6-a8", "int4-a8")
"""How a weight may be stored."""
QUANTIZED: tuple[DType, ...] = ("int8", "int6", "int4", "int6-a16", "int4-a16", "int6-a8", "int4-a8")
"""Formats of fewer than 16 bits, whose products are integers."""
GROUP_BITS: dict[DType, int] = {"int6": 6, "int4": 4}
"""Bits of a weight in the formats of groups with scales of their own, whose activations are bytes."""
LADDER_BITS: dict[DType, int] = {"int6-a16": 6, "int4-a16": 4, "int6-a8": 6, "int4-a8": 4}
"""Bits of a weight in the formats whose numbers are rungs between bytes, whose activations have a scale a row."""
PANELS_ALONE: tuple[DType, ...] = (*GROUP_BITS, *LADDER_BITS)
"""Formats that matrices in panels alone are stored in."""
ARITHMETIC: dict[DType, Arithmetic] = {
    **{"fp32": "fp32", "bf16": "fp32", "int8": "int16", "int6": "int8", "int4": "int8"},
    **{"int6-a16": "int16", "int4-a16": "int16", "int6-a8": "int8", "int4-a8": "int8"},
}
"""What the products of a linear are made of: activations of 16 bits, or of 8."""
