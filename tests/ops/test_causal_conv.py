"""The short causal convolution: its meaning beside torch's, its text, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.errors import ProgramError
from bossa.ir.interpret import interpret
from bossa.ir.parse import parse_program
from bossa.ir.program import Program
from bossa.ir.text import print_program
from bossa.ir.verify import verify
from bossa.ops import CausalConv

CHANNELS = 3
LINE = "%y[3] = causal_conv %x[3] $w[3,2] layer 0 dilation 1 delay 0"


def program(line: str = LINE, taps: int = 2) -> Program:
    """Embeds a token in three channels, which are its logits after one convolution."""

    def slot(name: str, layout: str, shape: str) -> str:
        return (
            f'slot {{"name": "{name}", "layout": "{layout}", "shape": {shape}, "dtype": "fp32",'
            f' "sources": [{{"names": ["{name}"], "shape": {shape}, "transpose": false}}], "interleave": false}}'
        )

    return parse_program(
        "\n".join(
            [
                'program "p" vocabulary 3 positions 40 output %z',
                slot("e", "rows", "[3, 3]"),
                slot("w", "flat", f"[3, {taps}]"),
                "%x[3] = embed $e tokens",
                line,
                "%z[3] = map %y[3]",
            ]
        )
    )


@given(
    taps=st.integers(1, 5),
    dilation=st.integers(1, 4),
    delay=st.integers(0, 3),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_it_is_what_torch_computes_of_each_sequence(
    taps: int, dilation: int, delay: int, lengths: list[int], seed: int
):
    if delay + (taps - 1) * dilation == 0:
        return
    rng = np.random.default_rng(seed)
    weights = {"e": rng.standard_normal((3, CHANNELS)), "w": rng.standard_normal((CHANNELS, taps))}
    line = f"%y[3] = causal_conv %x[3] $w[3,{taps}] layer 0 dilation {dilation} delay {delay}"
    sequences = [rng.integers(0, 3, length).tolist() for length in lengths]
    got = interpret(program(line, taps), weights, sequences, dtype=np.float64)
    wanted = []
    for sequence in sequences:
        x = torch.tensor(weights["e"][sequence].T)[None]
        padded = torch.nn.functional.pad(x, (delay + (taps - 1) * dilation, 0))
        kernel = torch.tensor(weights["w"])[:, None]
        y = torch.nn.functional.conv1d(padded, kernel, dilation=dilation, groups=CHANNELS)
        wanted.append(y[0, :, : len(sequence)].T.numpy())
    np.testing.assert_allclose(got, np.concatenate(wanted), rtol=1e-12, atol=1e-12)


def test_its_text_is_read_back():
    made = program("%y[3] = causal_conv %x[3] $w[3,2] layer 0 dilation 3 delay 1")
    verify(made)
    assert parse_program(print_program(made)) == made
    (op,) = (op for op in made.body if isinstance(op, CausalConv))
    assert (op.taps, op.reach) == (2, 4)
    spec = op.state()
    assert (spec.kind, spec.bytes, spec.draft_bytes, spec.rewinds) == ("recurrent", 4 * 64, 64, False)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("dilation 1", "dilation 0", "dilation below 1|reaches back 0 rows"),
        ("dilation 1", "dilation 5000", "reaches back 5000 rows"),
        ("%x[3] $", "%x[2] $", "2 channels meet taps of 3"),
        ("$w[3,2]", "$w[3,1]", "reaches back 0 rows"),
        ("$w[3,2]", "$w[3,2|2,2]", "reaches element"),
        ("$w[3,2]", "%x[3,2|1,0]", "its taps are no weight"),
        ("%x[3] $", "%x[3|0] $", "not side by side"),
        ("layer 0", "layer 1", r"layers are \[1\]"),
        ("%y[3]", "%y[4]", "do not fill"),
    ],
)
def test_what_is_malformed_is_refused(old: str, new: str, why: str):
    with pytest.raises(ProgramError, match=why):
        verify(program(LINE.replace(old, new, 1)))
