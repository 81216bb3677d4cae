"""``causal_conv`` as C++: workers share sequences and channels, and go through a sequence's rows in order."""

from __future__ import annotations

from bossa.ops import CausalConv
from bossa.targets.cpu.emit.emitter import Emitter
from bossa.targets.cpu.emit.names import Names


class CausalConvEmitter(Emitter[CausalConv]):
    """A call of `causal_conv.h`."""

    single = True

    def header(self, op: CausalConv) -> str | None:
        return "causal_conv.h"

    def write_section(self, names: Names, op: CausalConv) -> list[str]:
        x, out = names.plan.places[op.x.name], names.plan.places[op.out.name]
        offset = f" + {op.x.offset}" if op.x.offset else ""
        start = f" + {op.weight.offset}" if op.weight.offset else ""
        weight = f"{names.weight(op.weight.name)}{start}"
        shape = (
            f"CausalConvShape{{{op.x.shape[0]}, {op.taps}, {op.dilation}, {op.delay}, {weight},"
            f" {op.weight.strides[0]}, {op.weight.strides[1]}, kStateBytes, {names.state_offset(op)}}}"
        )
        return [
            f"  causal_conv(w, {shape}, *p.step,",
            f"              row(p, {x.offset}, {x.stride}, 0){offset}, {x.stride},",
            f"              row(p, {out.offset}, {out.stride}, 0), {out.stride});",
        ]
