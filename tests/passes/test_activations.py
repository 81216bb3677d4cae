"""Written-out activations are recognised in any spelling, and nothing else is."""

from __future__ import annotations

import pytest

from bossa.ir.notation import show_expr
from bossa.ir.parse import parse_program
from bossa.ir.program import Program
from bossa.ops import Map
from bossa.passes.activations import name_activations

X = "%x[8]"
CUBE = f"mul(mul({X}, {X}), {X})"
GELU_TANH = {
    "GPT-2": f"mul(mul({X}, 0.5), add(tanh(mul(add({X}, mul({CUBE}, 0.044715)), 0.7978845608028654)), 1.0))",
    "Bloom": f"mul(mul({X}, 0.5), add(tanh(mul(mul({X}, 0.79788456), add(mul(mul({X}, 0.044715), {X}), 1.0))), 1.0))",
    "turned round": f"mul(add(1.0, tanh(mul(0.79788456, add(mul(0.044715, pow({X}, 3.0)), {X})))), mul(0.5, {X}))",
    "half last": f"mul(0.5, mul({X}, add(1.0, tanh(mul(0.79788456, add({X}, mul(0.044715, {CUBE})))))))",
    "by sigmoid": f"mul({X}, sigmoid(mul(1.5957691216057308, add({X}, mul(0.044715, {CUBE})))))",
}


def _named(text: str) -> str:
    program = parse_program(f'program "p" vocabulary 8 positions 1 output %y\n%y[8] = map {text}')
    result: Program = name_activations(program)
    (op,) = result.body
    assert isinstance(op, Map)
    return show_expr(op.expr)


@pytest.mark.parametrize("spelling", GELU_TANH)
def test_the_tanh_gelu_is_recognised_in_every_spelling(spelling: str) -> None:
    assert _named(GELU_TANH[spelling]) == f"gelu_tanh({X})"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"mul({X}, sigmoid({X}))", "silu"),
        (f"mul(sigmoid({X}), {X})", "silu"),
        (f"div({X}, add(1.0, exp(neg({X}))))", "silu"),
        (f"reciprocal(add(exp(mul(-1.0, {X})), 1.0))", "sigmoid"),
        (f"mul(mul({X}, 0.5), add(1.0, erf(div({X}, 1.4142135623730951))))", "gelu"),
    ],
)
def test_other_activations_are_recognised(text: str, name: str) -> None:
    assert _named(text) == f"{name}({X})"


def test_the_operand_may_be_an_expression_and_the_activation_a_part_of_one() -> None:
    inner = "add(%a[8], %b[8])"
    text = f"mul(mul({inner}, sigmoid({inner})), %u[8])"
    assert _named(text) == f"mul(silu({inner}), %u[8])"


@pytest.mark.parametrize(
    "text",
    [
        f"mul({X}, sigmoid(mul({X}, 1.702)))",  # the quick gelu is another function
        f"mul({X}, sigmoid(%z[8]))",
        f"mul(mul({X}, 0.5), add(tanh(mul({X}, 0.7978845608028654)), 1.0))",
        f"min(mul({X}, sigmoid({X})), 1000.0)",
        f"mul(%x[8|0], sigmoid({X}))",
    ],
)
def test_what_only_looks_like_an_activation_stays(text: str) -> None:
    expected = text.replace(f"mul({X}, sigmoid({X}))", f"silu({X})")
    assert _named(text) == expected
