"""A row program as text that has one of everything and passes the verifier, to be changed a little."""

from __future__ import annotations

import json
from typing import Any


def slot_line(name: str, layout: str, *shape: int, sources: int = 1, interleave: bool = False) -> str:
    """The line of a slot."""
    source = {"names": [name], "shape": list(shape), "transpose": False}
    slot: dict[str, Any] = {"name": name, "layout": layout, "shape": list(shape), "dtype": "fp32"}
    return "slot " + json.dumps(slot | {"sources": [source] * sources, "interleave": interleave})


SOUND = "\n".join([
    'program "p" vocabulary 6 positions 8 output %y',
    "table !cos float32 [8,3]",
    "table !one float32 [1,4]",
    "table !places int32 [8]",
    "table !alibi float32 [8,2]",
    slot_line("e", "rows", 6, 12),
    slot_line("p", "rows", 8, 12),
    slot_line("b", "flat", 12),
    slot_line("sinks", "flat", 2),
    slot_line("w0", "panels", 12, 12),
    slot_line("w1", "panels", 12, 12),
    slot_line("gate", "panels", 64, 12, sources=2, interleave=True),
    slot_line("head", "panels", 6, 12),
    "%x[12] = embed $e tokens",
    "%p[12] = embed $p !places",
    "%s[12] = map add(%x[12], cat<0>(4: %p[4|2]+1, 8: tanh(%p[8]+4)))",
    "%m[3] = reduce mean 1 [3,4] mul(%s[3,4], !one[3,4|0,1])",
    "%r[3] = map mul(%m[3], !cos[3])",
    "loop 2 layers 1 {",
    "carry %s as %in[12] next %out result %last[12]",
    'weight "w*" is ["w0", "w1"]',
    "%a[2,3] = attention %in[2,3] %in[1,3]+6 %in[1,3]+9 layer 0 scale 0.5 window 0 softcap 0.0 bias !alibi"
    " sinks $sinks",
    '%l[12] = linear %in[12] $"w*" bias $b then add(#0[12], %in[12])',
    "%out[12] = map add(%l[12], %a[12|0])",
    "}",
    "%chosen[12] = select %last[12]",
    "%g[32] = linear %chosen[12] $gate parts 2 then mul(#0[32], #1[32])",
    "%y[6] = linear %g[12] $head",
])  # fmt: skip
