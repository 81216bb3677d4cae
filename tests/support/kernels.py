"""The kernels behind small shims, built for every target that this CPU runs: fixtures for those who test them."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bossa.formats.registry import FORMATS
from bossa.targets.cpu.features import supports
from bossa.targets.cpu.toolchain import KERNELS, TARGETS, host_target

HERE = Path(__file__).parents[1] / "targets/cpu/kernels"
SHIMS = ("math", "linear", "quantized", "pack", "attention", "team")
INTEGERS = ("quantized", "attention")
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-ffp-contract=off", "-fno-math-errno"]
SHIMS_OF = {
    **{"portable": SHIMS, "x86-64-v3": SHIMS, "x86-64-v4": SHIMS},
    **{"x86-64-v4-vnni": INTEGERS, "x86-64-v4-amx": INTEGERS},
}
"""What is built for each target: all of it, or what those instructions are for."""

Build = dict[str, ctypes.CDLL]


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Build]:
    """Target → shim → library, for every target that this CPU runs; the portable one is always there.

    Tests that run side by side share what one of them builds.
    """
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shims"
    directory.mkdir(exist_ok=True)
    _write_formats(directory)

    def build(target: str, shim: str) -> ctypes.CDLL:
        library = directory / f"{shim}.{target}.so"
        source = HERE / f"shim_{shim}.cc"
        with open(library.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not library.exists():
                part = library.with_suffix(".part")
                flags = [*FLAGS, *TARGETS[target].flags, "-iquote", str(KERNELS), "-iquote", str(directory)]
                if target != host_target():
                    flags.append("-O1")  # -O3 takes several times as long, and may change no bit
                done = subprocess.run([compiler, *flags, str(source), "-o", str(part)], capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
                part.rename(library)
        return ctypes.CDLL(str(library))

    wanted = [(target, shim) for target, shims in SHIMS_OF.items() if supports(target) for shim in shims]
    with ThreadPoolExecutor(2) as pool:
        libraries = dict(zip(wanted, pool.map(lambda pair: build(*pair), wanted), strict=True))
    made: dict[str, Build] = {}
    for (target, shim), library in libraries.items():
        made.setdefault(target, {})[shim] = library
    return made


def _write_formats(directory: Path) -> None:
    """The header that names all formats, for the shims: those that the registry has."""
    lines = [f'#include "{header}"' for header in dict.fromkeys(stored.header for stored in FORMATS.values())]
    quantized = [stored.cpp for stored in FORMATS.values() if stored.quantized]
    tables = [stored.cpp for stored in FORMATS.values() if "rows" in stored.layouts]
    every = [stored.cpp for stored in FORMATS.values()]
    for name, types in (("ALL_FORMATS", every), ("QUANTIZED_FORMATS", quantized), ("FORMATS_OF_TABLES", tables)):
        lines.append(f"#define {name} {', '.join(types)}")
    part = directory / f"all_formats.{os.getpid()}"
    part.write_text("\n".join(["#pragma once", "", *lines, ""]))
    part.rename(directory / "all_formats.h")


@pytest.fixture(scope="session")
def on_every_build(builds: dict[str, Build]) -> Callable[[str], list[ctypes.CDLL]]:
    """The libraries of one shim, the portable build first."""
    return lambda shim: [build[shim] for build in builds.values() if shim in build]
