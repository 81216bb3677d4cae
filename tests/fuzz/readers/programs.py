"""Row programs: their text parsed, verified, printed, planned and written as C++."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from math import prod
from pathlib import Path

from bossa.errors import ProgramError
from bossa.ir.interpret import interpret
from bossa.ir.parse import parse_program
from bossa.ir.program import Loop, Program, outputs
from bossa.ir.text import print_program
from bossa.ir.verify import verify
from bossa.ops import Reduce
from bossa.passes import optimize
from bossa.targets.cpu.emit.source import generate
from bossa.targets.cpu.plan import make_plan
from fuzz.json_mutations import mutate_json
from fuzz.mutations import CANARY, mutate_bytes, mutate_text, odd_number, odd_text, quoted
from fuzz.reader import demand
from support.programs import random_program, random_weights

LARGEST_ROW = 1 << 32
"""Bytes of activations that a program of these sizes may ask for a row."""
LARGEST_LOCAL = 1 << 20
"""Floats of a local array that fit a thread's stack."""
LARGEST_SOURCE = 1 << 26
EXTENTS = (2, 64, 4096, 20000, 2**20, 2**24, 2**40)
DEEP = (3, 100, 1_000, 20_000)
_NAME = re.compile(r'(?<=[%$!])\w+|(?<=[%$!])"(?:[^"\\\n]|\\.)*"|(?<=weight |rogram )"(?:[^"\\\n]|\\.)*"')
_LOCAL = re.compile(r"float \w+\[(\d+)\];")
_COMMENT = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', re.DOTALL)


def check_source(source: str) -> None:
    """Nothing of a file's names is in generated C++ but in comments and texts, as a C++ compiler sees them."""
    joined = re.sub(r"\\[^\S\n]*\n", "", re.sub(r"[\r\x0b\x0c\x85\u2028\u2029]", "\n", source))
    large = max((int(extent) for extent in _LOCAL.findall(source)), default=0)
    demand(large <= LARGEST_LOCAL, f"a function has a local array of {large:,} floats")
    demand(len(source) <= LARGEST_SOURCE, f"the C++ source has {len(source):,} letters")
    demand(CANARY not in _COMMENT.sub(" ", joined), "a name from the program stands in the C++ source")


class ProgramReader:
    """`parse_program` and `verify`, and what relies on them."""

    def seeds(self) -> list[bytes]:
        made = [random_program(random.Random(seed), layers=1 + seed % 4) for seed in range(8)]
        precisions = ("fp32", "fp32", "int8", "int8", "int4", "int4-a8", "fp32", "fp32")
        programs = [optimize(program, precision) for program, precision in zip(made, precisions, strict=True)]
        return [print_program(program).encode() for program in programs]

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        data = chance.choice(bases)
        text = data.decode("utf-8", "replace")
        roll = chance.random()
        if roll < 0.1:
            return mutate_bytes(chance, data, bases)
        if roll < 0.3:
            lines = text.split("\n")
            slots = [number for number, line in enumerate(lines) if line.startswith("slot {")]
            if slots:
                at = chance.choice(slots)
                lines[at] = "slot " + mutate_json(chance, lines[at].removeprefix("slot "))
                text = "\n".join(lines)
        elif roll < 0.5:
            text = renamed(chance, text)
        elif roll < 0.6:
            text = resized(chance, text)
        elif roll < 0.65:
            depth = chance.choice(DEEP)
            at = chance.choice([found.end() for found in re.finditer(r"map |then ", text)] or [0])
            rest = text[at:].split("\n", 1)
            text = text[:at] + "neg(" * depth + rest[0] + ")" * depth + "\n" + "".join(rest[1:])
        else:
            text = mutate_text(chance, text, [chance.choice(bases).decode("utf-8", "replace")])
        return text.encode("utf-8", "replace")

    def passes(self, data: bytes) -> bool:
        """Whether the first line, on which all others depend, is read."""
        first = next((line for line in data.decode("utf-8", "replace").splitlines() if line.strip()), "")
        try:
            parse_program(first)
        except ProgramError:
            return False
        except Exception:
            return True  # for `read` to find
        return True

    def read(self, data: bytes, folder: Path) -> None:
        program = parse_program(data.decode("utf-8", "replace"))
        verify(program)
        text = print_program(program)
        again = parse_program(text)
        verify(again)
        demand(print_program(again) == text, "a program that is printed and parsed prints otherwise")
        plan = make_plan(program)
        demand(plan.bytes_per_row <= LARGEST_ROW, f"a row takes {plan.bytes_per_row:,} bytes")
        check_source(generate(plan))
        if is_small(program):
            logits = interpret(program, random_weights(program), [[0, 0, 0], [0]])
            demand(logits.shape == (4, program.vocab_size), "a program gives logits of another shape than it says")


def is_small(program: Program) -> bool:
    """Whether the interpreter may run it: it takes memory for every value, and time for every iteration."""
    sizes = [prod(slot.shape) for slot in program.slots.values()]
    runs = 0
    for op in program.body:
        for inner in op.body if isinstance(op, Loop) else (op,):
            sizes.append(prod(inner.domain) if isinstance(inner, Reduce) else max(out.size for out in outputs(inner)))
            runs += op.count if isinstance(op, Loop) else 1
    return max(sizes) <= 1 << 16 and runs <= 500


def renamed(chance: random.Random, text: str) -> str:
    """The program with another name for one of its things, wherever it stands."""
    names = _NAME.findall(text)
    if not names:
        return text
    name = chance.choice(names).strip('"')
    other = quoted(odd_text(chance, name))
    return re.sub(rf'(?<=[%$!]){re.escape(name)}(?!\w)|"{re.escape(name)}"', lambda _: other, text)


def resized(chance: random.Random, text: str) -> str:
    """The program with another number for one of its numbers, wherever it stands, or with a value that is large."""
    if chance.random() < 0.5:
        numbers = re.findall(r"(?<![\w.])\d+(?![\w.])", text) or ["1"]
        number = chance.choice(numbers)
        other = str(odd_number(chance, int(number)))
        return re.sub(rf"(?<![\w.]){number}(?![\w.])", other, text)
    lines = text.split("\n")
    ops = [at for at, line in enumerate(lines) if " = " in line and line.startswith("%")] or [0]
    shape = ",".join(str(chance.choice(EXTENTS)) for _ in range(chance.randrange(1, 4)))
    read = f"%big[{shape}]"
    lines.insert(chance.choice(ops), f"{read} = map {chance.choice(('0.5', 'exp(0.5)'))}")
    if chance.random() < 0.5:
        lines.insert(len(lines) - 1, f"%sum[] = reduce sum {shape.count(',') + 1} [{shape}] {read}")
    return "\n".join(lines)
