"""The C++ compiler: which one, with what flags for which target, and what to say where there is none."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bossa.errors import ToolchainError, shown
from bossa.targets.cpu.features import PREFERENCE, host_features, supports

KERNELS = Path(__file__).parent / "kernels"

FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno",
    "-fno-exceptions", "-fno-rtti",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A CPU to compile for: the architecture it belongs to and the compiler's flags for it."""

    name: str
    machine: str | None  # None: the machine at hand, whatever it is
    flags: tuple[str, ...]


TARGETS = {
    target.name: target
    for target in (
        Target("x86-64-v3", "x86_64", ("-march=x86-64-v3",)),
        Target("x86-64-v4", "x86_64", ("-march=x86-64-v4", "-mprefer-vector-width=512")),
        Target("x86-64-v4-vnni", "x86_64", ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512")),
        Target(
            "x86-64-v4-amx",
            "x86_64",
            ("-march=x86-64-v4", "-mavx512vnni", "-mamx-tile", "-mamx-int8", "-mprefer-vector-width=512"),
        ),
        Target("aarch64", "aarch64", ()),
        Target("portable", None, ("-ftree-vectorize",)),
    )
}


def host_target() -> str:
    """The best target that this machine runs."""
    features = host_features()
    return next(name for name in PREFERENCE if supports(name, features))


def find_compiler() -> list[str]:
    """The command of a C++17 compiler: $CXX, the system's, or the one in the package `ziglang`.

    Raises:
        ToolchainError: there is none; the message says how to get one.
    """
    asked = os.environ.get("CXX")
    if asked:
        try:
            command = shlex.split(asked)
        except ValueError as error:
            raise ToolchainError(f"$CXX is {asked!r}, which is no command ({error}): mend it, or unset it") from None
        if not command:
            raise ToolchainError(f"$CXX is {asked!r}, which names no compiler: unset it, or name one")
        if shutil.which(command[0]) is None:
            raise ToolchainError(f"$CXX is {asked!r}, which is not there: unset it or install that compiler")
        return command
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "c++"]
    raise ToolchainError(
        "no C++ compiler: install g++ or clang (Debian: apt install g++; macOS: xcode-select --install), or"
        " pip install ziglang"
    )


def build_library(source: str, target: str) -> bytes:
    """Compile a program's source for `target`; the shared library's bytes.

    Raises:
        ToolchainError: no compiler, a target it cannot build for, or errors in the source (the first is quoted).
    """
    known = TARGETS.get(target)
    if known is None:
        raise ToolchainError(f"unknown target {target!r}: choose from {', '.join(TARGETS)}")
    command = find_compiler()
    flags = [*FLAGS, *known.flags, "-iquote", str(KERNELS)]
    if known.machine is not None and known.machine != platform.machine():
        if "ziglang" not in command:
            raise ToolchainError(
                f"{target} cannot be compiled on {platform.machine()} by {command[0]}: pip install ziglang and set"
                " CXX='python -m ziglang c++'"
            )
        flags += ["-target", f"{known.machine}-linux-gnu"]
    if "ziglang" in command:
        flags = [flag.replace("x86-64-v", "x86_64_v") if flag.startswith("-march=") else flag for flag in flags]
        flags += ["-fno-sanitize=undefined"]
    try:
        with tempfile.TemporaryDirectory(prefix="bossa-") as folder:
            return _compiled(source, command, flags, target, Path(folder))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ToolchainError(
            f"the compiler's files cannot be written ({reason}): free some space, or set TMPDIR to a folder that has it"
        ) from error


def _compiled(source: str, compiler: list[str], flags: list[str], target: str, folder: Path) -> bytes:
    path, library, called = folder / "program.cc", folder / "program.so", shown(" ".join(compiler))
    path.write_text(source, encoding="utf-8")
    try:
        command = [*compiler, *flags, str(path), "-o", str(library)]
        # Its own temporary files are made in the same folder: a compiler that is ended leaves them lying.
        environment = os.environ | {"TMPDIR": str(folder)}
        result = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment)
    except OSError as error:
        raise ToolchainError(f"the C++ compiler {shown(compiler[0])} does not start: {error.strerror}") from error
    if result.returncode != 0:
        told = result.stderr.decode("utf-8", "backslashreplace").strip()
        first = next((line for line in told.splitlines() if "error" in line), told[:300])
        reason = shown(first.strip()[:300]) or f"it ended with {result.returncode} and said nothing"
        raise ToolchainError(f"{called} failed for {target}: {reason}")
    if not library.is_file():
        raise ToolchainError(f"{called} made no library for {target}: set $CXX to a C++ compiler")
    return library.read_bytes()
