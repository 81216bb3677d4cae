"""The plan of a program's native code: sections, memory of a step, layout of KV pages and constants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from bossa.formats.geometry import PANEL
from bossa.formats.precision import GROUP_BITS, QUANTIZED, DType, KvPrecision
from bossa.ir.program import Attention, Linear, Loop, Op, Program
from bossa.targets.cpu.arena import Place, place_values
from bossa.targets.cpu.cut import Section, cut, describe

PAGE = 32
"""Positions of one KV page; `kPage` of the kernels."""

FEWEST_WALKED_ROWS = 64
"""Rows of a step for each worker from which on blocks of them walk; `kFewestWalkedRows` of the kernels."""

KV_BYTES: dict[KvPrecision, int] = {"fp32": 4, "bf16": 2, "int8": 1}
"""Bytes of a stored key or value, by precision."""


@dataclass(frozen=True)
class Plan:
    """A program cut into sections, with a place for every value that outlives its section.

    Attributes:
        places: by value name; values that are not here live inside one section.
        floats_per_row: the arena's size for one row.
        kv_precision: how keys and values are stored, one of `KV_BYTES`.
        kv_offsets: where each attention layer's keys and values start in a page, in bytes.
        page_bytes: size of a page, all layers together.
        constants: where each table starts in the constants, in floats.
        quantized: the kinds of linears that quantize their activations: the weights' format and K, in order.
    """

    program: Program
    sections: tuple[Section, ...]
    places: dict[str, Place]
    floats_per_row: int
    kv_precision: KvPrecision
    kv_offsets: tuple[int, ...]
    page_bytes: int
    constants: dict[str, int]
    quantized: tuple[tuple[DType, int], ...]

    @property
    def quantized_bytes_per_row(self) -> int:
        """Room for one row of activations as integers, whichever linear it is for."""
        return max((_quantized_row(dtype, k) for dtype, k in self.quantized), default=0)

    @property
    def finds_best(self) -> bool:
        """Whether the likeliest token can be found while the logits are computed: where a linear makes them."""
        last = self.program.body[-1]
        if not isinstance(last, Linear) or last.out.name != self.program.output:
            return False
        return len(last.x.shape) == 1 and last.parts == 1

    @property
    def bytes_per_row(self) -> int:
        """Memory that a row of a step takes."""
        return self.floats_per_row * 4 + self.quantized_bytes_per_row

    def layout(self) -> dict[str, Any]:
        """The fields of the manifest that say how memory is laid out."""
        program = self.program
        return {
            "max_seq_length": program.max_seq_length,
            "vocab_size": program.vocab_size,
            "page_size": PAGE,
            "page_bytes": self.page_bytes,
            "kv_precision": self.kv_precision,
            "slots": [slot.to_json() for slot in program.slots.values()],
            "constants": [
                {
                    "name": table,
                    "dtype": array.dtype.name,
                    "shape": list(array.shape),
                    "offset": self.constants[table] * 4,
                    "bytes": array.nbytes,
                }
                for table, array in program.tables.items()
            ],
        }

    def describe(self) -> list[dict[str, str]]:
        """The sections as the manifest lists them."""
        return list(describe(self.sections))


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def make_plan(program: Program, kv_precision: KvPrecision = "fp32") -> Plan:
    """Cut a program into sections and place its values."""
    sections = cut(program.body)
    places, floats = place_values(program, sections)
    kv_offsets, page_bytes = _kv_layout(program, kv_precision)
    constants: dict[str, int] = {}
    position = 0
    for name, table in program.tables.items():
        constants[name] = position
        position += round_up(table.size, 16)
    quantized = _quantized(program)
    return Plan(program, sections, places, floats, kv_precision, kv_offsets, page_bytes, constants, quantized)


def pack_constants(program: Program) -> bytes:
    """The tables as the native program reads them: one after the other, each at 64 bytes; biases by head."""
    biases = {op.bias for op in _attentions(program.body) if op.bias is not None}
    chunks: list[bytes] = []
    for name, table in program.tables.items():
        data = (table.T if name in biases else table).astype(table.dtype, order="C").tobytes()
        chunks.append(data + bytes(round_up(len(data), 64) - len(data)))
    return b"".join(chunks)


def _quantized(program: Program) -> tuple[tuple[DType, int], ...]:
    """The quantized linears' formats and K, without repeats."""
    kinds = {
        (slot.dtype, slot.shape[1])
        for slot in program.slots.values()
        if slot.dtype in QUANTIZED and slot.layout == "panels"
    }
    return tuple(sorted(kinds))


def _quantized_row(dtype: DType, k: int) -> int:
    """`row_bytes` of the kernels' formats: bytes with the sums and scales of blocks of 128; or words and a scale."""
    if dtype in GROUP_BITS:
        return round_up(-(-k // 128) * 144, 64) + 64
    return round_up(k, 64) * 2 + 64


def _attentions(ops: Iterable[Op]) -> Iterator[Attention]:
    for op in ops:
        if isinstance(op, Attention):
            yield op
        elif isinstance(op, Loop):
            yield from _attentions(op.body)


def head_bytes(dim: int, v_dim: int, kv_precision: KvPrecision) -> int:
    """What a head takes in a page: `HeadLayout` of the kernels."""
    element = KV_BYTES[kv_precision]
    scales = 2 * 4 * PAGE if kv_precision == "int8" else 0
    if kv_precision == "int8":
        dim = round_up(dim, 4)
    return round_up(element * PAGE * dim, 64) + element * PAGE * round_up(v_dim, PANEL) + scales


def _kv_layout(program: Program, kv_precision: KvPrecision) -> tuple[tuple[int, ...], int]:
    """Offsets of the layers in a page, in the order of their numbers, and the page's bytes."""
    sizes: dict[int, int] = {}

    def visit(ops: Iterable[Op], shifts: tuple[int, ...] = (0,)) -> None:
        for op in ops:
            if isinstance(op, Attention):
                heads, dim, v_dim = op.k.shape[0], op.k.shape[1], op.v.shape[1]
                for shift in shifts:
                    sizes[op.layer + shift] = heads * head_bytes(dim, v_dim, kv_precision)
            elif isinstance(op, Loop):
                visit(op.body, tuple(i * op.layers for i in range(op.count)))

    visit(program.body)
    *offsets, total = accumulate((sizes[layer] for layer in sorted(sizes)), initial=0)
    return tuple(offsets), total
