"""Builds the shims of this directory for several targets and lends them to the tests."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "src" / "bossa" / "kernels"
SHIMS = ("math", "linear", "quantized", "pack", "attention", "team")
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-ffp-contract=off", "-fno-math-errno"]
MARCHES = {"portable": "x86-64", "x86-64-v3": "x86-64-v3", "x86-64-v4": "x86-64-v4"}
NEEDED_FLAGS = {"portable": set(), "x86-64-v3": {"avx2", "fma"}, "x86-64-v4": {"avx512f", "avx512dq", "avx512vl"}}

Build = dict[str, ctypes.CDLL]


def cpu_flags() -> set[str]:
    """What the CPU can run, as Linux names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Build]:
    """Target → shim → library, for every target that this CPU runs; the portable one is always there."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    directory = tmp_path_factory.mktemp("shims")
    targets = [target for target, needed in NEEDED_FLAGS.items() if needed <= cpu_flags()]

    def build(target: str, shim: str) -> ctypes.CDLL:
        library = directory / f"{shim}.{target}.so"
        source = HERE / f"shim_{shim}.cc"
        flags = [*FLAGS, f"-march={MARCHES[target]}", "-iquote", str(KERNELS)]
        done = subprocess.run([compiler, *flags, str(source), "-o", str(library)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(library))

    with ThreadPoolExecutor(2) as pool:
        jobs = {(target, shim): pool.submit(build, target, shim) for target in targets for shim in SHIMS}
        return {target: {shim: jobs[target, shim].result() for shim in SHIMS} for target in targets}


@pytest.fixture(scope="session")
def on_every_build(builds: dict[str, Build]) -> Callable[[str], list[ctypes.CDLL]]:
    """The libraries of one shim, the portable build first."""
    return lambda shim: [build[shim] for build in builds.values()]
