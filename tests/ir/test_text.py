"""Row programs printed and parsed back."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.errors import ProgramError
from bossa.ir.parse import parse_program
from bossa.ir.program import Program
from bossa.ir.text import print_program
from bossa.ir.values import Value, View
from bossa.ops import Map
from bossa.passes import optimize
from support.programs import random_program

SMALL = """program "small" vocabulary 3 positions 8 output %y
table !t float32 [8,2]
slot {"name": "e", "layout": "rows", "shape": [3, 4], "dtype": "fp32", "sources": [{"names": ["e"], "shape": [3, 4], \
"transpose": false}], "interleave": false}
%x[4] = embed $e tokens
%y[3] = map cat<0>(1: add(%x[1]+3, 0.5), 2: mul(%x[2|2], !t[2]))
"""


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_what_is_printed_parses_to_the_same_program(seed: int, optimized: bool) -> None:
    program = random_program(random.Random(seed), select=not optimized)
    program = optimize(program) if optimized else program
    parsed = parse_program(print_program(program), program.tables)
    assert parsed.body == program.body
    assert parsed.slots == program.slots
    assert list(parsed.tables) == list(program.tables)
    assert (parsed.name, parsed.vocab_size, parsed.max_seq_length, parsed.output) == (
        program.name, program.vocab_size, program.max_seq_length, program.output,
    )  # fmt: skip
    assert print_program(parsed) == print_program(program)


def test_names_that_are_not_identifiers_and_numbers_that_are_not_finite_come_back() -> None:
    text = SMALL.replace("0.5", "-inf").replace("%x", '%"a.größe[0]/b:c-d"')
    program = parse_program(text)
    assert parse_program(print_program(program)).body == program.body
    assert '"a.gr\\u00f6\\u00dfe[0]/b:c-d"' in print_program(program)


def test_without_their_contents_tables_are_zeros_of_their_shape() -> None:
    table = parse_program(SMALL).tables["t"]
    assert table.shape == (8, 2)
    assert table.dtype == np.float32
    assert not table.any()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("program ", "programme ", "line 1: expected program"),
        ("vocabulary 3", "vocabulary many", "line 1: expected a whole number"),
        ("float32 [8,2]", "float64 [8,2]", "line 2: expected float32 or int32"),
        ('"layout": "rows", ', "", "line 3: expected a slot"),
        ('"interleave": false}', "", "line 3: expected JSON"),
        ("embed $e", "embedding $e", "line 4: expected .*\\bembed, linear"),
        ("embed $e tokens", "embed $e tokens 3", "line 4: expected the end of the line"),
        ("add(%x[1]+3, 0.5)", "add(%x[1]+3)", "line 5: expected 2 arguments of add"),
        ("%x[2|2]", "%x[2|2,1]", "line 5: expected a stride for each axis"),
        ("mul(", "multiply(", "line 5: expected a number"),
        ("cat<0>(1:", "cat<0>(1", "line 5: expected :"),
        ("0.5", "&", "line 5: expected"),
    ],
)
def test_what_does_not_parse_is_refused_by_line(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(ProgramError, match=f"^{message}"):
        parse_program(SMALL.replace(old, new))


def test_a_loop_that_does_not_end_and_an_empty_file_are_refused() -> None:
    with pytest.raises(ProgramError, match="expected } of a loop"):
        parse_program(SMALL + "loop 2 layers 0 {\n")
    with pytest.raises(ProgramError, match="found nothing"):
        parse_program("\n\n")


def test_a_contiguous_view_is_printed_without_strides() -> None:
    view = View("value", "x", (2, 3), (3, 1), 4)
    text = print_program(Program("p", 1, 1, (Map(Value("y", (2, 3)), view),), "y"))
    assert "map %x[2,3]+4\n" in text
