"""A row program's native code in its file: made when it is compiled, and made anew from the file alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.codegen.plan import Plan, make_plan, pack_constants
from bossa.codegen.source import generate
from bossa.codegen.toolchain import build_library, host_target
from bossa.errors import PefError, ProgramError
from bossa.pef import Manifest, Pef
from bossa.program.ir import Attention, Loop, Op, Program
from bossa.program.parse import parse_program
from bossa.program.text import print_program
from bossa.program.verify import verify

TEXT_FORMAT = 1
"""Of ``program.json``."""

Progress = Callable[[str], None]


def native_members(plan: Plan, targets: Sequence[str], tell: Progress) -> dict[str, bytes]:
    """The members that follow from the program alone.

    Raises:
        ToolchainError: no C++ compiler, or it failed.
    """
    program = plan.program
    tell("generate")
    source = generate(plan)
    libraries = {}
    for target in targets:
        tell(f"compile {target}")
        libraries[f"program.{target}.so"] = build_library(source, target)
    text = {"format": TEXT_FORMAT, "program": print_program(program).splitlines()}
    return {
        **libraries,
        "program.json": json.dumps(text, indent=1).encode(),
        "program.cc": source.encode(),
        "constants.bin": pack_constants(program),
    }


def native_fields(plan: Plan, targets: Sequence[str]) -> dict[str, Any]:
    """The fields of the manifest that follow from the program alone."""
    return {
        **plan.layout(),
        "arena_bytes_per_row": plan.bytes_per_row,
        "targets": list(targets),
        "sections": plan.describe(),
    }


def rebuild(pef: Pef, progress: Progress | None = None) -> Pef:
    """The same program for this machine, its native code generated and compiled anew from the row program.

    Neither the libraries nor the C++ source in the file are used, so that they need not be trusted.

    Raises:
        PefError: the row program in it cannot be read.
        ToolchainError: no C++ compiler, or it failed.
    """
    tell = progress or (lambda stage: None)
    tell("read the program")
    program = read_program(pef)
    plan = make_plan(program, pef.manifest.kv_precision)
    targets = [host_target()]
    fields = native_fields(plan, targets)
    if fields["slots"] != pef.manifest.to_json()["slots"]:
        raise PefError(f"{pef.where}: its program.json and its manifest name other weights: compile the model again")
    members: dict[str, Any] = {name: pef.member(name) for name in pef.names() if not _is_native(name)}
    members |= native_members(plan, targets, tell)
    rebuilt = Pef.build(pef.manifest.to_json() | fields, members)
    rebuilt.where = pef.where
    return rebuilt


def _is_native(member: str) -> bool:
    return member == "manifest.json" or (member.startswith("program.") and member.endswith(".so"))


def read_program(pef: Pef) -> Program:
    """The row program of a file, with the contents of its tables.

    Raises:
        PefError: it is of another format, does not parse, or does not agree with the manifest.
    """
    where = f"{pef.where}: program.json"
    try:
        content = json.loads(pef.program_json())
        held = content["format"]
        text = "\n".join(content["program"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise PefError(f"{where} is not a row program: compile the model again") from None
    if held != TEXT_FORMAT:
        raise PefError(f"{where} has format {held!r}, and this Bossa reads {TEXT_FORMAT}: compile the model again")
    stored = _stored_tables(pef)
    try:
        # Twice: which tables are biases, and so lie by head, the program itself says.
        biases = set(_biases(parse_program(text, stored).body))
        tables = {
            name: np.ascontiguousarray(array.reshape(array.shape[::-1]).T) if name in biases else array
            for name, array in stored.items()
        }
        program = parse_program(text, tables)
        _check(program, pef.manifest, where)
        verify(program)
    except ProgramError as error:
        raise PefError(f"{where}: {error}: compile the model again") from None
    except (KeyError, ValueError, RecursionError):
        raise PefError(f"{where} does not agree with the manifest: compile the model again") from None
    return program


def _stored_tables(pef: Pef) -> dict[str, NDArray[Any]]:
    """The tables as ``constants.bin`` has them; those of attention biases are transposed there."""
    data = pef.constants() if pef.manifest.constants else memoryview(b"")
    return {
        constant.name: np.frombuffer(data[constant.offset : constant.offset + constant.bytes], constant.dtype).reshape(
            constant.shape
        )
        for constant in pef.manifest.constants
    }


def _biases(ops: Sequence[Op]) -> Iterator[str]:
    for op in ops:
        if isinstance(op, Attention) and op.bias is not None:
            yield op.bias
        elif isinstance(op, Loop):
            yield from _biases(op.body)


def _check(program: Program, manifest: Manifest, where: str) -> None:
    """Refuse what would not compile to the program that the manifest describes: the file may be from anybody."""
    own = (program.vocab_size, program.max_seq_length)
    if own != (manifest.vocab_size, manifest.max_seq_length):
        raise PefError(f"{where} does not agree with the manifest: compile the model again")
    names: Mapping[str, object] = {program.name: None, **program.slots, **program.tables}
    for name in names:
        if not name.isprintable() or "\\" in name:  # names stand in comments of the source
            raise PefError(f"{where}: {name[:80]!r} is not a name that may stand in a program: compile the model again")


__all__ = ["native_fields", "native_members", "read_program", "rebuild"]
