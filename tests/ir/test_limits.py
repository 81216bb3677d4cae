"""Programs that ask for more than there is, in a line of text: refused in one, at once, and never by a crash."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from bossa.errors import ProgramError
from bossa.ir import limits, parse
from bossa.ir.parse import parse_program
from bossa.ir.program import Loop, Op, Program
from bossa.ir.runnable import check_runnable
from bossa.ir.values import Apply, Cat, Const, Expr, Value
from bossa.ir.verify import verify
from bossa.ops import Attention, Map
from support.sound import SOUND, slot_line

SECONDS = 10
"""Far more than any of these takes, far less than what has no end."""


def refuse(make: Callable[[], Program], message: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ProgramError, match=message) as caught:
        verify(make())
    assert time.monotonic() - begin < SECONDS
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("%m[3] =", "%big[16777216] = map 1.0\n%m[3] =", "more than 4194304 elements"),
        ("%m[3] =", "%big[1099511627776] = map 1.0\n%m[3] =", "at most 2147483647"),
        ("%m[3] =", "%big[2000000,2000000] = map 1.0\n%m[3] =", "more than 4194304 elements"),
        ("%m[3] =", "%z[] = reduce sum 2 [4096,4096] 1.0\n%m[3] =", "more than 4194304 elements"),
        ("%m[3] =", "%z[] = reduce sum 1 [0] 1.0\n%m[3] =", "an empty axis"),
        ("%m[3] =", f"%z[{','.join('1' * 40)}] = map 1.0\n%m[3] =", "at most 16 axes"),
        ("loop 2", "loop 1000000000000", "at most 2147483647"),
        ("loop 2", "loop 1000000000", "1000000000 iterations, where 4096"),
        ("layer 0 scale", "layer -1 scale", "layer and window below 0"),
        ("window 0", "window 99999999999", "at most 2147483647"),
        ("softcap 0.0", "softcap inf", "out of range"),
        ("scale 0.5", "scale nan", "out of range"),
        ("%p[4|2]+1", "%p[4|2]+-1", "strides and offset below 0"),
        ("%p[4|2]+1", "%p[1|4000000000]+1", "at most 2147483647"),
        ("parts 2", "parts 0", "go together|parts"),
        ("parts 2", "parts -1", "parts below 0"),
        ("cat<0>(4", "cat<-1>(4", "a join below 0"),
        ("vocabulary 6", "vocabulary 2000000000", "a vocabulary of 2000000000"),
        ("vocabulary 6", "vocabulary " + "9" * 5000, "a whole number"),
        ("table !one float32 [1,4]", "table !one float32 [1,2000000000]", "more than 4194304 numbers a position"),
        ("[12, 12]", "[1048576, 1048576, 1048576]", "more than 4398046511104 elements"),
    ],
)
def test_a_number_out_of_bounds_is_refused(old: str, new: str, message: str) -> None:
    assert old in SOUND
    refuse(lambda: parse_program(SOUND.replace(old, new, 1)), message)


@pytest.mark.parametrize("number", ["nan", "-nan", "1e400", "-1e400", "3.4028236e38", "1e39"])
@pytest.mark.parametrize(
    "at", ["scale 0.5", "softcap 0.0", "%m[3] = reduce mean 1 [3,4] mul(%s[3,4], !one[3,4|0,1])", "mul(#0[32], #1[32])"]
)
def test_a_number_that_no_float32_holds_is_refused(at: str, number: str) -> None:
    word = at.split()[0]
    new = {"scale": f"scale {number}", "softcap": f"softcap {number}", "%m[3]": f"%m[3] = reduce mean 1 [3,4] {number}"}
    assert at in SOUND
    text = SOUND.replace(at, new.get(word, f"mul({number}, #1[32])"))
    refuse(lambda: parse_program(text), "expected a number that a float32 holds|that no float32 holds|out of range")
    program = parse_program(SOUND)
    for value in (float(number), *([3.5e38, 1e300] if "nan" not in number else [])):
        if value in (float("inf"), float("-inf")):
            continue  # of itself it is a float32
        refuse(lambda value=value: mapped(Const(value), 4), r"a number \(.*\) that no float32 holds")
        loops = [replace(op, body=tuple(scaled(inner, value) for inner in op.body)) if isinstance(op, Loop) else op
                 for op in program.body]  # fmt: skip
        refuse(lambda loops=loops: replace(program, body=tuple(loops)), "a scale or cap out of range")


def scaled(op: Op, scale: float) -> Op:
    return replace(op, scale=scale) if isinstance(op, Attention) else op


@pytest.mark.parametrize("number", ["inf", "-inf", "3.4028235e38", "-3.4028234663852886e+38", "0.0", "1e-400"])
def test_a_number_that_a_float32_holds_passes(number: str) -> None:
    verify(parse_program(SOUND.replace("mul(#0[32], #1[32])", f"max({number}, #1[32])")))


def test_heads_wider_than_the_kernels_room_are_refused() -> None:
    for heads, width, message in (
        (2, 20000, "heads of 20000 and 20000 .* too wide"),
        (1000, 2000, "too many"),
    ):
        size, shape = heads * width, f"[{heads},{width}]"
        line = (
            f"%wide[{size}] = map 1.0\n%w[{size}] = attention %wide{shape} %wide{shape} %wide{shape} layer 2 scale 1.0"
            " window 0 softcap 0.0\n%chosen[12] ="
        )
        refuse(lambda line=line: parse_program(SOUND.replace("%chosen[12] =", line)), message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("neg(" * 100_000 + "1.0" + ")" * 100_000, "nested more than 200 deep"),
        ("cat<0>(1: " * 100_000 + "1.0", "nested more than 200 deep"),
        ("neg(" * 100_000, "nested more than 200 deep"),
        ("%x[" + "1" * 1_000_000 + "]", "a whole number"),
        ('%"' + "x" * 1_000_000 + '"[1]', "is not a name"),
        ('%"' + "x" * 1_000_000, "expected"),
        (" " * 1_000_000, "expected"),
        ("%x[" + "1," * 1_000_000, "at most 16 axes"),
        ("&" * 1_000_000, "expected"),
    ],
)
def test_long_and_deep_lines_are_read_in_a_moment(line: str, message: str) -> None:
    refuse(lambda: parse_program(SOUND.replace("%m[3] =", f"%z[1] = map {line}\n%m[3] =")), message)


def test_loops_within_loops_are_refused_however_many() -> None:
    refuse(lambda: parse_program(SOUND + "\nloop 1 layers 0 {" * 100_000), "a loop in a loop")


def test_lines_without_end_are_refused() -> None:
    refuse(lambda: parse_program(SOUND + "\na" * 1_000_000), "expected the end")


@pytest.mark.parametrize("line", ["%z{}[3] = map mul(%m[3], !cos[3])", "  %z", "%z{}[3] = nothing"])
def test_ops_without_end_are_refused_before_any_is_read(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SOUND.replace("\nloop", "".join("\n" + line.format(i) for i in range(30_000)) + "\nloop")
    with monkeypatch.context() as patch:
        patch.setattr(parse, "_op", lambda _: pytest.fail("read"))
        refuse(lambda: parse_program(text), "^line 200[0-9]{2}: it has more than 20000 ops")
    inside = SOUND.replace("%a[2,3] =", "".join(f"%z{i}[3] = map 1.0\n" for i in range(60_000)) + "%a[2,3] =")
    refuse(lambda: parse_program(inside), "more than 20000 ops")


F8 = slot_line("w9", "panels", 12, 12).replace("fp32", "fp8").removeprefix("slot ")


def test_json_that_is_no_slot_and_no_list_of_slots_is_refused() -> None:
    for line in (
        "[" * 100_000,
        "{}",
        "5",
        '{"name": ["w0"]}',
        slot_line("w9", "panels", 12, 12).replace("fp32", "fp8")[5:],
    ):
        refuse(lambda line=line: parse_program(SOUND.replace("%x[12] =", f"slot {line}\n%x[12] =")), "expected")
    for names in ('"w0"', "5", "{}", "[5, 6]", '[["w0"], "w1"]', "[" * 100_000):
        refuse(lambda names=names: parse_program(SOUND.replace('["w0", "w1"]', names)), "expected")


def test_what_is_there_twice_is_refused() -> None:
    refuse(
        lambda: parse_program(SOUND.replace("%x[12] =", slot_line("w0", "panels", 12, 12) + "\n%x[12] =")),
        "there twice",
    )
    refuse(lambda: parse_program(SOUND.replace("table !one", "table !cos float32 [8,3]\ntable !one")), "there twice")


CARRY = "carry %s as %in[12] next %out result %last[12]"


def mapped(expr: Expr, *shape: int) -> Program:
    program = parse_program(SOUND)
    return replace(program, body=(Map(Value("z", shape), expr), *program.body))


def test_expressions_in_memory_are_bounded_too() -> None:
    deep: Expr = Const(1.0)
    for _ in range(100_000):
        deep = Apply("neg", (deep,))
    refuse(lambda: mapped(deep, 4), "nested more than 200 deep")
    wide: Expr = Const(1.0)
    for _ in range(14):
        wide = Apply("add", (wide, wide))
    refuse(lambda: mapped(wide, 4), "more than 16384 parts")
    halves: Expr = Const(1.0)
    for axis in range(11):
        halves = Apply("add", (halves, Cat(axis, (1, 1), (Const(1.0), Const(2.0)))))
    refuse(lambda: mapped(halves, *[2] * 11), "more than 1024 pieces")
    refuse(lambda: mapped(Cat(0, (), ()), 4), "sizes do not fit")


def test_many_ops_and_much_work_are_refused() -> None:
    program = parse_program(SOUND)
    ops = tuple(Map(Value(f"z{i}", (1,)), Const(1.0)) for i in range(100_000))
    refuse(lambda: replace(program, body=(*ops, *program.body)), "more than 20000 ops")
    ops = tuple(Map(Value(f"z{i}", (1 << 22,)), Const(1.0)) for i in range(5000))
    refuse(lambda: replace(program, body=(*ops, *program.body)), "steps of pointwise work")


def test_a_large_model_passes() -> None:
    """A vocabulary of 262,144, 16,384 features, 65,536 in the MLP, 128 layers, 131,072 positions."""
    h, mlp, vocabulary, layers = 16_384, 65_536, 262_144, 128
    slots = [slot_line("e", "panels", vocabulary, h), slot_line("n", "flat", h)]
    slots += [
        slot_line(f"{i}.{name}", "panels", *shape)
        for i in range(layers)
        for name, shape in (("qkv", (3 * h, h)), ("o", (h, h)), ("up", (mlp, h)), ("down", (h, mlp)))
    ]
    program = parse_program("\n".join([
        f'program "large" vocabulary {vocabulary} positions 131072 output %y',
        "table !cos float32 [131072,128]",
        *slots,
        f"%x[{h}] = embed $e tokens",
        f"loop {layers} layers 1 {{",
        f"carry %x as %in[{h}] next %out result %last[{h}]",
        *(f'weight "{name}" is {[f"{i}.{name}" for i in range(layers)]}'.replace("'", '"')
          for name in ("qkv", "o", "up", "down")),
        f"%m[1] = reduce mean 1 [1,{h}] mul(%in[1,{h}], %in[1,{h}])",
        f"%n[{h}] = map mul(mul(%in[{h}], rsqrt(%m[{h}|0])), $n[{h}])",
        f"%qkv[{3 * h}] = linear %n[{h}] $qkv",
        "%q[128,128] = map mul(%qkv[128,128], !cos[128,128|0,1])",
        f"%a[128,128] = attention %q[128,128] %qkv[128,128]+{h} %qkv[128,128]+{2 * h} layer 0 scale 0.1 window 0"
        " softcap 0.0",
        f"%r[{h}] = linear %a[{h}] $o then add(#0[{h}], %in[{h}])",
        f"%up[{mlp}] = linear %r[{h}] $up then gelu(#0[{mlp}])",
        f"%out[{h}] = linear %up[{mlp}] $down then add(#0[{h}], %r[{h}])",
        "}",
        f"%s[{h}] = select %last[{h}]",
        f"%y[{vocabulary}] = linear %s[{h}] $e",
    ]))  # fmt: skip
    check_runnable(program)
    assert 16 * vocabulary <= limits.ELEMENTS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("%chosen[12] = select %last[12]", "%chosen[12] = map %last[12]", "never selected"),
        ("%y[6] = linear %g[12] $head", "%y[6] = linear %g[12] $head\n%z[1] = map 1.0", "last op does not make"),
        ("!cos[3])", "!alibi[3|0])", "table alibi is a bias of attention and read otherwise"),
    ],
)
def test_what_native_code_is_not_made_for_is_refused(old: str, new: str, message: str) -> None:
    assert old in SOUND
    check_runnable(parse_program(SOUND))
    with pytest.raises(ProgramError, match=message):
        check_runnable(parse_program(SOUND.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (CARRY, CARRY.replace("next %out", "next %s"), "does not go on as"),
        (CARRY, f"{CARRY}\ncarry %x as %more[12] next %out result %also[12]", "goes on as two"),
        ("%g[32] =", "%t[12] = embed $e tokens\n%g[32] =", "tokens after the selection"),
    ],
)
def test_loops_and_embeddings_that_code_would_misread_are_refused(old: str, new: str, message: str) -> None:
    assert old in SOUND
    refuse(lambda: parse_program(SOUND.replace(old, new)), message)


def test_tables_that_are_not_what_the_text_says_are_refused() -> None:
    stored = dict(parse_program(SOUND).tables)
    for name, array in (("cos", stored["cos"][:, :2]), ("cos", stored["places"]), ("cos", None)):
        tables = {key: value for key, value in (stored | {name: array}).items() if value is not None}
        with pytest.raises(ProgramError, match=r"table cos is float32 \[8, 3\] here, and what is stored"):
            parse_program(SOUND, tables)
