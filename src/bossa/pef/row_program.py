"""The row program in a file, written out and read without trusting it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bossa.ops  # noqa: F401  the kinds of ops that the parser knows
from bossa.errors import PefError, ProgramError, shown
from bossa.ir.parse import parse_program
from bossa.ir.program import Program, row_ops
from bossa.ir.runnable import check_runnable
from bossa.ir.text import print_program
from bossa.pef.file import Pef
from bossa.pef.manifest import Constant, Manifest

TEXT_FORMAT = 1
"""Of ``program.json``."""
LARGEST_TEXT = 64 << 20
"""Bytes of ``program.json``."""


def write_program(program: Program) -> bytes:
    """The content of ``program.json``."""
    text = {"format": TEXT_FORMAT, "program": print_program(program).splitlines()}
    return json.dumps(text, indent=1).encode()


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
        columns = {name for op in row_ops(program) for name in op.column_tables()}
        program = replace(program, tables=_stored_tables(pef, columns))
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
        raise disagreement(where, "vocab_size and max_seq_length")
    if [slot.to_json() for slot in program.slots.values()] != [dict(slot) for slot in manifest.slots]:
        raise PefError(f"{where} and the manifest name other weights: compile the model again")
    tables = [(name, array.dtype.name, array.shape) for name, array in program.tables.items()]
    if tables != [(constant.name, constant.dtype, constant.shape) for constant in manifest.constants]:
        raise disagreement(where, "constants")


def disagreement(where: str, fields: str) -> PefError:
    """What is raised where a program and its manifest do not belong together."""
    return PefError(f"{where} does not agree with the manifest ({fields}): compile the model again")


def _stored_tables(pef: Pef, columns: set[str]) -> dict[str, NDArray[Any]]:
    """The tables as ``constants.bin`` has them; those that are read by columns are transposed there."""
    data = pef.constants() if pef.manifest.constants else memoryview(b"")
    return {
        constant.name: _stored_table(data, constant, constant.name in columns) for constant in pef.manifest.constants
    }


def _stored_table(data: memoryview, constant: Constant, transposed: bool) -> NDArray[Any]:
    held = data[constant.offset : constant.offset + constant.bytes]
    array: NDArray[Any] = np.frombuffer(held, constant.dtype)
    if transposed:
        return np.ascontiguousarray(array.reshape(constant.shape[::-1]).T)
    return array.reshape(constant.shape)
