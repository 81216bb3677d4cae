"""The verifier: one refusal a rule, each a small change to a program that passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bossa.errors import ProgramError
from bossa.ir.parse import parse_program
from bossa.ir.values import Apply, Const, Value
from bossa.ir.verify import verify
from bossa.ops import Map
from support.sound import SOUND


def _check(text: str) -> None:
    verify(parse_program(text))


def test_the_sound_program_passes() -> None:
    _check(SOUND)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # names
        ("map mul(%m[3]", "map mul(%nothing[3]", "%nothing is not defined before it"),
        ("%r[3] = map", "%m[3] = map", "%m is defined twice"),
        ("add(%l[12], %a[12|0])", "add(%l[12], %out[12])", "%out is not defined before it"),
        ("bias $b", "bias $nothing", "there is no slot nothing"),
        ("!cos[3])", "!sin[3])", "there is no table sin"),
        ("output %y", "output %z", "output %z is not defined"),
        ("output %y", "output %g", r"output has shape \[32\]"),
        ("%chosen[12] = select %last[12]", "%chosen[12] = select %out[12]", "%out .* is inside a loop"),
        ("%g[12] $head", "%s[12] $head", "%s has the rows of before the selection"),
        # views
        ("%p[4|2]+1", "%p[4|4]", "reaches element 12 of 12"),
        ("%p[4|2]+1", "%p[4|2]+6", "reaches element 12 of 12"),
        ("%p[4|2]+1", "%p[4|-1]+5", "strides and offset below 0"),
        ("!one[3,4|0,1]", "!one[3,4|1,1]", "a view of one reaches element 5 of 4"),
        ("!cos[3])", "!places[3|0])", "table places of integers"),
        ("%r[3] = map mul(%m[3]", "%r[3] = map mul($w0[3]", "slot w0 has the layout panels, not flat"),
        ("%r[3] = map mul(%m[3]", "%r[3] = map mul(#0[3]", "outside its epilogue"),
        # expressions
        ("map mul(%m[3], !cos[3])", "map mul(%m[2], !cos[3])", r"shape \[2\] in the domain \[3\]"),
        ("8: tanh(%p[8]+4)", "7: tanh(%p[7]+4)", r"a join of \[4, 7\] along an axis of 12"),
        ("cat<0>", "cat<1>", "a join along axis 1"),
        # reductions
        ("reduce mean 1 [3,4]", "reduce mean 2 [3,4]", "its shape is not what is left"),
        ("reduce mean 1 [3,4]", "reduce mean 3 [3,4]", "3 axes of the domain"),
        # embeddings
        ("embed $e tokens", "embed $b tokens", "layout flat, not rows or panels"),
        ("embed $p !places", "embed $p !cos", "not one whole number a position"),
        ("vocabulary 6", "vocabulary 7", "6 rows for a vocabulary of 7"),
        ("%x[12] = embed", "%x[11] = embed", r"rows of 12 do not fill \[11\]"),
        # linears
        ("linear %g[12] $head", "linear %g[11] $head", "11 features meet a weight of 6 by 12"),
        ("linear %g[12] $head", "linear %g[12|2] $head", "input of a linear is not contiguous"),
        ("linear %g[12] $head", "linear $b[12] $head", "must be a value"),
        ("%y[6] = linear", "%y[7] = linear", r"1 times 6 outputs do not fill \[7\]"),
        ("bias $b", "bias $sinks", r"slot sinks of shape \[2\] has not 12 elements"),
        ("%g[32] = linear %chosen[12] $gate parts 2", "%g[64] = linear %chosen[12] $gate", "go together"),
        ("%chosen[12] $gate parts 2", "%chosen[12] $gate bias $b parts 2", "biases in its epilogue"),
        ("mul(#0[32], #1[32])", "mul(#0[32], #2[32])", "no part #2"),
        ("mul(#0[32], #1[32])", "mul(#0[32], #1[32|0])", "#1 is read other than element by element"),
        ("mul(#0[32], #1[32])", "cat<0>(16: #0[16], 16: #1[16])", "a join in an epilogue"),
        (" then mul(#0[32], #1[32])", "", "parts need an epilogue"),
        ("add(#0[12], %in[12])", "add(#0[12], %p[12|0])", None),
        ("add(#0[12], %in[12])", "add(#0[12], %x[6|2])", "in the domain"),
        # attention
        ("layer 0", "layer 1", r"layers are \[1, 2\]"),
        ("attention %in[2,3]", "attention %in[2,4]", "queries of 4 features meet keys of 3"),
        ("%in[1,3]+9 layer", "%in[2,3]+6 layer", "2 heads over 1 and 2"),
        ("attention %in[2,3]", "attention %in[2,3|1,2]", "features side by side"),
        ("%a[2,3] = attention", "%a[2,4] = attention", "2 heads of 3 do not fill"),
        ("softcap 0.0", "softcap -1.0", "out of range"),
        ("bias !alibi", "bias !cos", r"the bias cos has shape \[8, 3\]"),
        ("sinks $sinks", "sinks $b", "slot b .* has not 2 elements"),
        # the selection
        ("%g[32] =", "%again[12] = select %chosen[12]\n%g[32] =", "selected twice"),
        ("select %last[12]", "select %last[11]", "something else than a whole value"),
        (
            "%g[32] =",
            "%z[1,3] = attention %chosen[1,3] %chosen[1,3] %chosen[1,3] layer 2 scale 1.0 window 0 softcap 0.0\n"
            "%g[32] =",
            "attention after the selection",
        ),
        # loops
        ("as %in[12]", "as %in[11]", "changes its shape"),
        ("carry %s as", "carry %nothing as", "starts from %nothing"),
        ("next %out", "next %a", "%a does not go on as %in"),
        ('is ["w0", "w1"]', 'is ["w0"]', "1 slots for 2 iterations"),
        ('is ["w0", "w1"]', 'is ["w0", "gate"]', "differ in more than their name"),
        ('"w*"', '"w1"', "has the name of a slot"),
        ("loop 2 layers 1", "loop 2 layers 2", "moves on by 2 layers an iteration and has 1"),
        ("loop 2", "loop 0", "a loop that runs never"),
        # tables
        ("table !cos float32 [8,3]", "table !cos float32 [7,3]", "neither 1 nor 8 positions"),
    ],
)
def test_a_broken_rule_is_named(old: str, new: str, message: str | None) -> None:
    assert old in SOUND
    text = SOUND.replace(old, new)
    if message is None:
        _check(text)
        return
    with pytest.raises(ProgramError, match=message) as caught:
        _check(text)
    assert "\n" not in str(caught.value)


def test_the_message_names_the_program_and_the_op() -> None:
    with pytest.raises(ProgramError, match=r"^p: %r\[3\] = map mul\(%nothing\[3\], !cos\[3\]\): %nothing"):
        _check(SOUND.replace("map mul(%m[3]", "map mul(%nothing[3]"))


def test_a_position_table_may_not_point_outside_its_embedding() -> None:
    tables = {name: np.asarray(table) for name, table in parse_program(SOUND).tables.items()}
    tables["places"] = np.arange(1, 9, dtype=np.int32)
    with pytest.raises(ProgramError, match="points outside the 8 rows"):
        verify(parse_program(SOUND, tables))


def test_a_function_of_too_many_arguments_is_refused() -> None:
    program = parse_program(SOUND)
    for apply, message in (
        (Apply("add", (Const(1.0),)), "add of 1 arguments"),
        (Apply("nope", ()), "no function nope"),
    ):
        op = Map(Value("z", (1,)), apply)
        with pytest.raises(ProgramError, match=message):
            verify(replace(program, body=(op, *program.body)))
