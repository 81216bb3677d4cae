"""The emitter of each kind of op."""

from __future__ import annotations

from bossa.errors import ProgramError
from bossa.ir.op import RowOp
from bossa.ops import Attention, CausalConv, Embed, Linear, Map, Reduce, Select
from bossa.targets.cpu.emit.attention import AttentionEmitter
from bossa.targets.cpu.emit.causal_conv import CausalConvEmitter
from bossa.targets.cpu.emit.embed import EmbedEmitter
from bossa.targets.cpu.emit.emitter import AnyEmitter
from bossa.targets.cpu.emit.linear import LinearEmitter
from bossa.targets.cpu.emit.map import MapEmitter
from bossa.targets.cpu.emit.reduce import ReduceEmitter
from bossa.targets.cpu.emit.select import SelectEmitter

EMITTERS: dict[type[RowOp], AnyEmitter] = {
    Attention: AttentionEmitter(),
    CausalConv: CausalConvEmitter(),
    Embed: EmbedEmitter(),
    Linear: LinearEmitter(),
    Map: MapEmitter(),
    Reduce: ReduceEmitter(),
    Select: SelectEmitter(),
}


def emitter_of(op: RowOp) -> AnyEmitter:
    """The emitter of an op's kind.

    Raises:
        ProgramError: this target does not run such ops.
    """
    emitter = EMITTERS.get(type(op))
    if emitter is None:
        raise ProgramError(f"{op.keyword} is not run on CPUs")
    return emitter
