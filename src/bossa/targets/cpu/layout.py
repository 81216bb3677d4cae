"""What a plan says: sections, and where everything lies in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bossa.formats.precision import KvPrecision
from bossa.formats.registry import FORMATS
from bossa.ir.program import Program, row_ops, stateful_ops
from bossa.ir.state import StateSpec, StateTotals, totals
from bossa.ops import Linear
from bossa.targets.cpu.sections import Section, describe

PAGE = 32
"""Positions of one KV page; `kPage` of the kernels."""

FEWEST_FUSED_ROWS = 64
"""Rows of a step for each worker from which on blocks of them go through fused sections; `kFewestFusedRows`."""


DRAFTS = 8
"""Guesses of speculation whose inputs a slot of recurrent state has room for."""


@dataclass(frozen=True)
class Place:
    """A value's place, in floats a row: row t of it starts at ``offset * max_rows + t * stride``."""

    offset: int
    stride: int


@dataclass(frozen=True)
class Plan:
    """A program cut into sections, with a place for every value that outlives its section.

    Attributes:
        places: by value name; values that are not here live inside one section.
        floats_per_row: the arena's size for one row.
        kv_precision: how keys and values are stored.
        state_offsets: where the state of each op that keeps some starts, in bytes: in a page, or in a sequence's slot.
        page_bytes: size of a page, all ops together.
        constants: where each table starts in the constants, in floats.
        quantized: the kinds of linears that quantize their activations: the weights' format and K, in order.
    """

    program: Program
    sections: tuple[Section, ...]
    places: dict[str, Place]
    floats_per_row: int
    kv_precision: KvPrecision
    state_offsets: tuple[int, ...]
    page_bytes: int
    constants: dict[str, int]
    quantized: tuple[tuple[str, int], ...]

    @property
    def quantized_bytes_per_row(self) -> int:
        """Room for one row of activations as integers, whichever linear it is for."""
        return max((FORMATS[dtype].activation_bytes(k) for dtype, k in self.quantized), default=0)

    @property
    def finds_best(self) -> bool:
        """Whether the likeliest token can be found while the logits are computed: where a linear makes them."""
        last = self.program.body[-1]
        if not isinstance(last, Linear) or last.out.name != self.program.output:
            return False
        return len(last.x.shape) == 1 and last.parts == 1

    @property
    def takes_adapters(self) -> bool:
        """Whether its linears add the pairs of a row's adapter."""
        return any(isinstance(op, Linear) and op.adapted for op in row_ops(self.program))

    @property
    def bytes_per_row(self) -> int:
        """Memory that a row of a step takes."""
        return self.floats_per_row * 4 + self.quantized_bytes_per_row

    @property
    def state(self) -> StateTotals:
        """What the ops of the program keep of a sequence, all together."""
        return totals(self.state_specs)

    @property
    def state_specs(self) -> list[StateSpec]:
        """What each of them keeps, loops unrolled."""
        return [op.state() for op in stateful_ops(self.program)]

    @property
    def state_bytes(self) -> int:
        """Of a slot of recurrent state; 0 where there is none."""
        return self.state.layout(DRAFTS).get("state_bytes", 0)

    def layout(self) -> dict[str, Any]:
        """The fields of the manifest that say how memory is laid out."""
        program = self.program
        return {
            "max_seq_length": program.max_seq_length,
            "vocab_size": program.vocab_size,
            "page_size": PAGE,
            "page_bytes": self.page_bytes,
            "kv_precision": self.kv_precision,
            **self.state.layout(DRAFTS),
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
