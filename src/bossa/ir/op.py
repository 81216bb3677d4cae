"""An op of a row program: what every kind of it says of itself, so that nobody else need know the kinds.

The kinds are in ``bossa.ops``, a file each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

from bossa.ir.bounds import Bounds
from bossa.ir.cost import OpCost
from bossa.ir.line import Line
from bossa.ir.rows import Array, Rows
from bossa.ir.scope import Scope
from bossa.ir.slot import Slot
from bossa.ir.state import StateSpec
from bossa.ir.values import Expr, Shape, Value, View

KINDS: dict[str, type[RowOp]] = {}
"""The kinds of ops by the word that begins them in a program's text."""


@dataclass(frozen=True)
class RowOp(ABC):
    """An op that defines one value.

    Attributes:
        out: what it defines.
        keyword: the word that begins it in a program's text.
        selects: whether the ops after it have other rows than those before: the ones whose logits are wanted.
    """

    out: Value
    keyword: ClassVar[str]
    selects: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if "keyword" in cls.__dict__:
            KINDS[cls.keyword] = cls

    # -- what it reads --------------------------------------------------------------------------------------------

    def expressions(self) -> tuple[Expr, ...]:
        """Every expression that it reads, single views included."""
        return ()

    def slot_names(self) -> tuple[str, ...]:
        """The slots that it reads, but those in expressions."""
        return ()

    def table_names(self) -> tuple[str, ...]:
        """The position tables that it reads, but those in expressions."""
        return ()

    def column_tables(self) -> tuple[str, ...]:
        """Those of its tables that it reads a column at a time, over all positions; files hold them transposed."""
        return ()

    def pointwise_domain(self) -> Shape:
        """The domain of its expressions."""
        return self.out.shape

    @abstractmethod
    def map_operands(self, change: Callable[[View], View]) -> Self:
        """The op with every view that it reads replaced by another."""

    def rename_slots(self, name: Callable[[str], str]) -> Self:
        """The op with the slots of ``slot_names`` renamed."""
        return self

    # -- its text -------------------------------------------------------------------------------------------------

    @abstractmethod
    def text(self) -> str:
        """What follows its keyword."""

    @classmethod
    @abstractmethod
    def parse(cls, out: Value, line: Line) -> Self:
        """The op of a line, from behind the keyword on.

        Raises:
            ProgramError: it does not parse.
        """

    # -- what it must keep to -------------------------------------------------------------------------------------

    def bound(self, bounds: Bounds) -> int:
        """Refuse numbers and sizes that are out of bounds; the pointwise steps of a row beside its expressions.

        Raises:
            ProgramError: one is.
        """
        return 0

    @abstractmethod
    def verify(self, scope: Scope) -> None:
        """Refuse what is malformed. The scope defines ``out`` afterwards.

        Raises:
            ProgramError: the rule that is broken.
        """

    # -- what it means and costs ----------------------------------------------------------------------------------

    @abstractmethod
    def run(self, step: Rows) -> Array:
        """Its value ``[T, D...]``, in NumPy."""

    def cost(self, slot: Callable[[str], Slot]) -> OpCost:
        """What it costs, but for flat weights and what is pointwise.

        Args:
            slot: the slot of a name.
        """
        return OpCost()


class StatefulOp(RowOp):
    """An op that keeps something of a sequence from row to row, and sees by it rows before its own.

    Attributes:
        layer: its place among all ops of the program that keep state, from 0.
    """

    layer: int

    @abstractmethod
    def with_layer(self, layer: int) -> Self:
        """The op in another place among them."""

    @abstractmethod
    def state(self) -> StateSpec:
        """What it keeps."""
