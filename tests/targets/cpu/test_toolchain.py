"""The compiler that is asked for, when it is none, fails, or speaks in other letters: one line each."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

import pytest

from bossa.errors import ToolchainError
from bossa.targets.cpu.toolchain import build_library, find_compiler, host_target

SOURCE = "int main() {}"


def compiler(folder: Path, script: str) -> str:
    """A command that runs these lines of Python in place of a compiler."""
    path = folder / "compiler.py"
    path.write_text(script)
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))}"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (" ", "names no compiler"),
        ("\t\n", "names no compiler"),
        ('"g++', "is no command"),
        ("g++\\", "is no command"),
        ("/nowhere/g++ -m64", "is not there"),
    ],
)
def test_a_command_that_names_no_compiler_is_refused(monkeypatch: pytest.MonkeyPatch, asked: str, message: str) -> None:
    monkeypatch.setenv("CXX", asked)
    with pytest.raises(ToolchainError, match=rf"^\$CXX is .*{message}") as caught:
        find_compiler()
    assert "\n" not in str(caught.value)


def test_an_empty_command_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "")
    assert find_compiler()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            r"import os; os.write(2, b'erreur: \xe9\xe8 \x1b[31merror'); os._exit(1)",
            r"erreur: \\xe9\\xe8 \\x1b\[31merror",
        ),
        (r"import os; os.write(2, b'\xff\n\xff error\n'); os._exit(1)", r"\\xff error$"),
        ("import os; os._exit(3)", "it ended with 3 and said nothing"),
        ("import os; os.kill(os.getpid(), 9)", "it ended with -9"),
        ("", "made no library"),
    ],
)
def test_what_a_compiler_says_becomes_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, message: str
) -> None:
    monkeypatch.setenv("CXX", compiler(tmp_path, script))
    with pytest.raises(ToolchainError, match=message) as caught:
        build_library(SOURCE, host_target())
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("ended", [True, False])
def test_what_a_compiler_leaves_in_its_temporary_folder_goes_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ended: bool
) -> None:
    """A compiler that is ended has no time to remove its files."""
    told, elsewhere = tmp_path / "told", tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = (
        "import os, tempfile\n"
        "file, path = tempfile.mkstemp(suffix='.s')\n"
        f"open({str(told)!r}, 'w').write(path)\n"
        f"os.kill(os.getpid(), {9 if ended else 0})"
    )
    monkeypatch.setenv("CXX", compiler(tmp_path, script))
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(ToolchainError):
        build_library(SOURCE, host_target())
    left = Path(told.read_text())
    assert left.parent.parent == elsewhere
    assert not left.parent.exists()
    assert not list(elsewhere.iterdir())


def test_a_folder_for_its_files_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nowhere(**_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setenv("CXX", compiler(tmp_path, ""))
    monkeypatch.setattr(tempfile, "TemporaryDirectory", nowhere)
    with pytest.raises(ToolchainError, match=r"cannot be written .*No usable temporary directory"):
        build_library(SOURCE, host_target())
