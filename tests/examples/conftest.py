"""Examples are run by the commands of their own documents."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

Run = Callable[[str, str], list[str]]


def commands(document: Path, program: str) -> list[list[str]]:
    """The commands of the first block of a document that names the program, without ``python``."""
    blocks = re.findall(r"^```\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    block = next(block for block in blocks if f"/{program} " in block)
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("python ")]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs those commands one after the other, in an empty directory, and gives what each of them printed."""
    (tmp_path / "examples").symlink_to(EXAMPLES)

    def run(example: str, program: str) -> list[str]:
        printed = []
        for command in commands(EXAMPLES / example / "README.md", program):
            result = subprocess.run(
                [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
            )
            assert result.returncode == 0, f"{shlex.join(command)}\n{result.stderr}"
            printed.append(result.stdout)
        return printed

    return run
