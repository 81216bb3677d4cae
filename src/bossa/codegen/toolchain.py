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

from bossa.cpu import PREFERENCE, host_features, supports
from bossa.errors import ToolchainError

KERNELS = Path(__file__).parent.parent / "kernels"

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
        command = shlex.split(asked)
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
    with tempfile.TemporaryDirectory(prefix="bossa-") as folder:
        path, library = Path(folder) / "program.cc", Path(folder) / "program.so"
        path.write_text(source)
        try:
            result = subprocess.run([*command, *flags, str(path), "-o", str(library)], capture_output=True, text=True)
        except OSError as error:
            raise ToolchainError(f"the C++ compiler {command[0]} does not start: {error.strerror}") from error
        if result.returncode != 0:
            first = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr[:300])
            raise ToolchainError(f"{' '.join(command)} failed for {target}: {first.strip()[:300]}")
        return library.read_bytes()
