"""Names that a program's text may hold: a name or a refusal of one line, and never code in what is generated."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bossa.errors import ProgramError, shown
from bossa.ir.parse import parse_program
from bossa.ir.program import Program
from bossa.ir.runnable import check_runnable
from bossa.ir.text import print_program
from bossa.ir.verify import verify
from bossa.targets.cpu.emit.names import Identifiers, comment
from bossa.targets.cpu.emit.source import generate
from bossa.targets.cpu.plan import make_plan

KINDS = ("title", "value", "carried", "step", "result", "output", "table", "bias", "rows", "flat", "panels", "formal",
         "tensor", "tied")  # fmt: skip
"""Everything that has a name: the program, its values, tables, slots, formal weights and a slot's tensors."""


def text(names: dict[str, str]) -> str:
    """A small program with these names."""
    n = {kind: json.dumps(name) for kind, name in names.items()}

    def slot(name: str, layout: str, *shape: int) -> str:
        sources = f'[{{"names": [{n["tensor"]}, {n["tied"]}], "shape": {list(shape)}, "transpose": false}}]'
        return (
            f'slot {{"name": {name}, "layout": "{layout}", "shape": {list(shape)}, "dtype": "fp32",'
            f' "sources": {sources}, "interleave": false}}'
        )

    return "\n".join([
        f"program {n['title']} vocabulary 6 positions 8 output %{n['output']}",
        f"table !{n['table']} float32 [8,4]",
        f"table !{n['bias']} float32 [8,2]",
        slot(n["rows"], "rows", 6, 12),
        slot(n["flat"], "flat", 12),
        slot(n["panels"], "panels", 12, 12),
        slot('"other"', "panels", 12, 12),
        slot('"head"', "panels", 6, 12),
        f"%{n['value']}[12] = embed ${n['rows']} tokens",
        f"%m[4] = reduce mean 1 [4,3] mul(%{n['value']}[4,3], ${n['flat']}[4,3])",
        "loop 2 layers 1 {",
        f"carry %{n['value']} as %{n['carried']}[12] next %{n['step']} result %{n['result']}[12]",
        f'weight {n["formal"]} is [{n["panels"]}, "other"]',
        f"%a[2,3] = attention %{n['carried']}[2,3] %{n['carried']}[1,3]+6 %{n['carried']}[1,3]+9 layer 0 scale 0.5"
        f" window 0 softcap 0.0 bias !{n['bias']}",
        f"%l[12] = linear %{n['carried']}[12] ${n['formal']} bias ${n['flat']} then add(#0[12], %{n['carried']}[12])",
        f"%{n['step']}[12] = map add(%l[12], mul(%a[12|0], cat<0>(4: !{n['table']}[4], 8: %m[8|0])))",
        "}",
        f"%chosen[12] = select %{n['result']}[12]",
        f"%{n['output']}[6] = linear %chosen[12] $head",
    ])  # fmt: skip


PLAIN = {kind: f"{kind}.name" for kind in KINDS}
ILL = st.lists(
    st.one_of(
        st.sampled_from([
            "\n", "\r", "\x0b", "\x85", "\u2028", "\\", "\\\n", "*/", "//", "/*", '"', "'", "??/", "??/\n", "%:", "<:",
            "#", ";",
            'int y = system("touch OWNED");', "#include </etc/passwd>", "\\u000a", "}", "{", " ", "R\"(", ")\"", "int",
            "p", "_lanes", "$", "`", "\0", "\u202e", "a", "0", ".", "é", "ß", "_", "-", "|",
        ]),
        st.characters(codec="utf-8"),
    ),
    min_size=1, max_size=6,
).map("".join)  # fmt: skip


def tokens(source: str) -> str:
    """The code of a source, its comments left out, names that are ours by number, and its signature left out."""
    code = "\n".join(line for line in source.split("\n") if not line.startswith("// "))
    code = re.sub(r'"[0-9a-f]{32}"', '"signature"', code)
    numbers: dict[str, str] = {}
    return re.sub(
        r"\b(?:[vtw]_\w+|[vt][0-9]+\w*)", lambda found: numbers.setdefault(found[0], f"n{len(numbers)}"), code
    )


def made(names: dict[str, str]) -> str:
    program = parse_program(text(names))
    check_runnable(program)
    return generate(make_plan(program))


def outcome(names: dict[str, str]) -> tuple[str | None, str]:
    """The source, or what it was refused with."""
    try:
        return made(names), ""
    except ProgramError as error:
        return None, str(error)


@pytest.fixture(scope="module")
def expected() -> str:
    return tokens(made(PLAIN))


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(KINDS), name=ILL)
@example(kind="formal", name='x\nint y=system("touch OWNED");//')
@example(kind="value", name='x\nint y=system("touch OWNED");//')
@example(kind="title", name="ends in a backslash\\")
@example(kind="table", name="int")
def test_any_text_for_any_name_is_refused_in_a_line_or_changes_no_code(expected: str, kind: str, name: str) -> None:
    source, refusal = outcome(PLAIN | {kind: name})
    if source is None:
        assert shown(refusal) == refusal
        return
    assert tokens(source) == expected
    assert source.isascii()
    assert "\\" not in source


def test_the_names_of_models_are_names(expected: str) -> None:
    for name in (
        "model.layers.0.mlp.gate_proj.weight", "h.0.attn|h.0.b", "transformer.h.*.ln_1.weight", "model.1+2*.x:flat",
        "enc/dec.größe", "a[0](b)@c='d',", "w'", "0",
    ):  # fmt: skip
        for kind in KINDS:
            assert tokens(made(PLAIN | {kind: name})) == expected, (name, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_programs_made_in_memory_obey_the_same_alphabet(kind: str) -> None:
    """What the text refuses, the verifier does: found by a name that is only there to be exchanged."""
    program = parse_program(text(PLAIN))
    bad = exchanged(program, PLAIN[kind], "a\nb")
    assert bad != program
    with pytest.raises(ProgramError, match=r"a\\nb|one line") as caught:
        verify(bad)
    assert "\n" not in str(caught.value)


def exchanged(part: object, old: str, new: str) -> object:
    """A program, or a part of one, with one of its names exchanged."""
    if isinstance(part, str):
        return new if part == old else part
    if isinstance(part, tuple):
        return tuple(exchanged(item, old, new) for item in part)
    if isinstance(part, dict):
        return {exchanged(key, old, new): exchanged(value, old, new) for key, value in part.items()}
    if is_dataclass(part):
        return replace(part, **{f.name: exchanged(getattr(part, f.name), old, new) for f in fields(part)})
    return part


def test_names_that_are_alike_without_their_marks_stay_apart_in_the_source() -> None:
    names = ["a.b", "a_b", "a/b", "v_a", "a_b_lanes", "v1", "v1_lanes", "int", "p", "t0", "x", "x_2"]
    program = Program("p", 1, 1, (), "y")
    lines = [f"%{json.dumps(name)}[1] = map 1.0" for name in names]
    program = parse_program("\n".join([print_program(program).strip(), "table !t0 float32 [1]", *lines]))
    identifiers = Identifiers(program)
    given = [identifiers.of("value", name) for name in names] + [identifiers.of("table", "t0")]
    given += [f"{name}_lanes" for name in given]
    assert len(set(given)) == len(given)
    assert all(re.fullmatch(r"(?:[vt]_\w+|[vt][0-9]+\w*)", name, re.ASCII) for name in given)


@given(st.text())
def test_a_comment_is_one_line_of_harmless_letters(text: str) -> None:
    line = comment(text)
    assert line.startswith("// ")
    assert line.isascii()
    assert line.isprintable()
    assert "\\" not in line
    assert "?" not in line
