"""A row program's native code in its file: made when it is compiled, and made anew from the file alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bossa.errors import PefError, ProgramError
from bossa.ir.runnable import check_runnable
from bossa.pef import Pef
from bossa.pef.row_program import disagreement, read_program, write_program
from bossa.targets.cpu.emit.source import generate
from bossa.targets.cpu.layout import Plan
from bossa.targets.cpu.plan import make_plan, pack_constants
from bossa.targets.cpu.toolchain import build_library, host_target

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
    return {
        **libraries,
        "program.json": write_program(program),
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
        **({"adapters": True} if plan.takes_adapters else {}),
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
    differing = [
        name
        for name in ("page_size", "page_bytes", "state_bytes", "state_drafts")
        if layout.get(name, 0) != getattr(manifest, name)
    ]
    if plan.bytes_per_row > MORE_ACTIVATIONS * manifest.arena_bytes_per_row + SPARE_ACTIVATIONS:
        differing.append("arena_bytes_per_row")
    if differing:
        raise disagreement(f"{pef.where}: program.json", ", ".join(differing))


MORE_ACTIVATIONS, SPARE_ACTIVATIONS = 2, 1 << 20
"""How many times what the manifest says the activations of a rebuilt row may take, and bytes beside."""
