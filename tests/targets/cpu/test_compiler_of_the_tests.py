"""The compiler that the tests use compiles nothing twice, and says what is wrong as the system's does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bossa.targets.cpu.toolchain import KERNELS, find_compiler

COMPILER = Path(__file__).parents[2] / "support" / "c++"
SOURCE = 'extern "C" int answer() { return 42; }\n'


def compile_it(folder: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.cc").write_text(text)
    command = [COMPILER, "-O3", "-shared", "-fPIC", "-iquote", KERNELS, folder / "program.cc", "-o", folder / "x.so"]
    environment = {**os.environ, "BOSSA_TEST_LIBRARIES": str(folder / "kept"), **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kept").mkdir()
    return tmp_path


def test_the_tests_use_it():
    if "CXX" in os.environ and Path(os.environ["CXX"]) == COMPILER:
        assert find_compiler() == [str(COMPILER)]


def test_the_same_source_is_compiled_once_and_another_anew(folder: Path):
    assert compile_it(folder, SOURCE).returncode == 0
    first = (folder / "x.so").read_bytes()
    kept = [path for path in (folder / "kept").iterdir() if path.suffix != ".lock"]
    assert len(kept) == 1
    kept[0].write_bytes(b"what was kept")
    assert compile_it(folder, SOURCE).returncode == 0
    assert (folder / "x.so").read_bytes() == b"what was kept"
    assert compile_it(folder, SOURCE.replace("42", "43")).returncode == 0
    assert (folder / "x.so").read_bytes() != b"what was kept"
    assert compile_it(folder, SOURCE, BOSSA_TEST_LIBRARIES="").returncode == 0
    assert (folder / "x.so").read_bytes()[:4] == first[:4] == b"\x7fELF"


def test_an_error_is_the_compilers(folder: Path):
    result = compile_it(folder, "int x = ;\n")
    assert result.returncode != 0
    assert "error" in result.stderr
    assert all(path.suffix == ".lock" for path in (folder / "kept").iterdir())
