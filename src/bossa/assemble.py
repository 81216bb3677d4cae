"""A row program's native code in its file: made when it is compiled, and made anew from the file alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.checks.shown import shown
from bossa.codegen.plan import Plan, make_plan, pack_constants
from bossa.codegen.source import generate
from bossa.codegen.toolchain import build_library, host_target
from bossa.errors import PefError, ProgramError
from bossa.pef import Constant, Manifest, Pef
from bossa.program.ir import Attention, Loop, Op, Program
from bossa.program.parse import parse_program
from bossa.program.runnable import check_runnable
from bossa.program.text import print_program

TEXT_FORMAT = 1
"""Of ``program.json``."""

Progress = Callable[[str], None]


def native_members(plan: Plan, targets: Sequence[str], tell: Progress) -> dict[str, bytes]:
    """The members that follow from the program alone.

    Raises:
        ProgramError: the program cannot be run as it is, or is too large.
        ToolchainError: no C++ compiler, or it failed.
    """
    program = plan.program
    check_runnable(program)
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

    Neither the libraries nor the C++ source in the file are used, so that they need not be trusted. Nor need the row
    program: its size is bounded, its names are checked, and nothing of it becomes code but numbers.

    Raises:
        PefError: the row program in it cannot be read, is too large, or is not what the manifest says.
        ToolchainError: no C++ compiler, or it failed.
    """
    tell = progress or (lambda stage: None)
    tell("read the program")
    program = read_program(pef)
    plan = make_plan(program, pef.manifest.kv_precision)
    _check_plan(plan, pef)
    targets = [host_target()]
    members: dict[str, Any] = {name: pef.member(name) for name in pef.names() if not _is_native(name)}
    try:
        members |= native_members(plan, targets, tell)
    except ProgramError as error:
        raise PefError(f"{pef.where}: program.json: {error}: compile the model again") from None
    rebuilt = Pef.build(pef.manifest.to_json() | native_fields(plan, targets), members)
    rebuilt.where = pef.where
    return rebuilt


def _is_native(member: str) -> bool:
    return member == "manifest.json" or (member.startswith("program.") and member.endswith(".so"))


def _check_plan(plan: Plan, pef: Pef) -> None:
    """Refuse a program that wants other memory than the manifest says.

    Activations are placed anew, by another Bossa perhaps, so that what they take may differ somewhat.
    """
    manifest, layout = pef.manifest, plan.layout()
    differing = [name for name in ("page_size", "page_bytes") if layout[name] != getattr(manifest, name)]
    if plan.bytes_per_row > MORE_ACTIVATIONS * manifest.arena_bytes_per_row + SPARE_ACTIVATIONS:
        differing.append("arena_bytes_per_row")
    if differing:
        raise _disagreement(f"{pef.where}: program.json", ", ".join(differing))


MORE_ACTIVATIONS, SPARE_ACTIVATIONS = 2, 1 << 20
"""How many times what the manifest says the activations of a rebuilt row may take, and bytes beside."""
LARGEST_TEXT = 64 << 20
"""Bytes of ``program.json``."""


def read_program(pef: Pef) -> Program:
    """The row program of a file, with the contents of its tables.

    Raises:
        PefError: it is of another format, does not parse, is too large, or does not agree with the manifest.
    """
    where = f"{pef.where}: program.json"
    content = _read_text(pef, where)
    try:
        program = parse_program(content)
        _check(program, pef.manifest, where)
        program = replace(program, tables=_stored_tables(pef, set(_biases(program.body))))
        check_runnable(program)
    except ProgramError as error:
        raise PefError(f"{where}: {error}: compile the model again") from None
    return program


def _read_text(pef: Pef, where: str) -> str:
    """The program's text."""
    if "program.json" in pef.names() and pef.manifest.members["program.json"].size > LARGEST_TEXT:
        raise PefError(f"{where} is larger than {LARGEST_TEXT >> 20} MiB: compile the model again")
    try:
        content = json.loads(pef.program_json())
        held, lines = content["format"], content["program"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise PefError(f"{where} is not a row program: compile the model again") from None
    if type(held) is not int or held != TEXT_FORMAT:
        shape = shown(repr(held)[:40]) if isinstance(held, int | str) else "another"
        raise PefError(f"{where} has format {shape}, and this Bossa reads {TEXT_FORMAT}: compile the model again")
    if not isinstance(lines, list) or not all(isinstance(line, str) and "\n" not in line for line in lines):
        raise PefError(f"{where} is not a row program: compile the model again")
    return "\n".join(lines)


def _check(program: Program, manifest: Manifest, where: str) -> None:
    """Refuse what is not the program that the manifest describes: the file may be from anybody."""
    if (program.vocab_size, program.max_seq_length) != (manifest.vocab_size, manifest.max_seq_length):
        raise _disagreement(where, "vocab_size and max_seq_length")
    if [slot.to_json() for slot in program.slots.values()] != [dict(slot) for slot in manifest.slots]:
        raise PefError(f"{where} and the manifest name other weights: compile the model again")
    tables = [(name, array.dtype.name, array.shape) for name, array in program.tables.items()]
    if tables != [(constant.name, constant.dtype, constant.shape) for constant in manifest.constants]:
        raise _disagreement(where, "constants")


def _disagreement(where: str, fields: str) -> PefError:
    return PefError(f"{where} does not agree with the manifest ({fields}): compile the model again")


def _stored_tables(pef: Pef, biases: set[str]) -> dict[str, NDArray[Any]]:
    """The tables as ``constants.bin`` has them; those of attention biases are transposed there."""
    data = pef.constants() if pef.manifest.constants else memoryview(b"")
    return {
        constant.name: _stored_table(data, constant, constant.name in biases) for constant in pef.manifest.constants
    }


def _stored_table(data: memoryview, constant: Constant, transposed: bool) -> NDArray[Any]:
    held = data[constant.offset : constant.offset + constant.bytes]
    array: NDArray[Any] = np.frombuffer(held, constant.dtype)
    if transposed:
        return np.ascontiguousarray(array.reshape(constant.shape[::-1]).T)
    return array.reshape(constant.shape)


def _biases(ops: Sequence[Op]) -> Iterator[str]:
    for op in ops:
        if isinstance(op, Attention) and op.bias is not None:
            yield op.bias
        elif isinstance(op, Loop):
            yield from _biases(op.body)


__all__ = ["native_fields", "native_members", "read_program", "rebuild"]
